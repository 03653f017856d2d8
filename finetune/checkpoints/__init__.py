"""What a stage keeps while it works, so that the same command goes on where a dead one stopped, and ends with the same bytes.

$DVC_ROOT/.resume/<stage>/<key>/   in the user's own repository, beside DVC's outs, which DVC deletes before it runs a stage
├── step-40/                       a checkpoint, whole and verified or not there (kept.py)
└── answers.jsonl                  results of single items, as they came (journal.py)

The key (key.py) covers everything that determines the result, so another `train.r` never goes on from this one. Whoever works there holds a
lock (lock.py), which the kernel frees when it dies. When the outs are written the folder is removed.
"""
