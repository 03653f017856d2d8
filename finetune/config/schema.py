"""Every setting there is: its type, its limits, and one line on what it means. Values live in conf/, never here.

Names are those of TRL, PEFT and transformers wherever they have one, so that their documentation can be searched.
pydantic rather than plain dataclasses, because it reports every problem of a configuration at once.
"""

import re
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import Field, field_validator, model_validator

from finetune.config.data import Files, SmartHome
from finetune.config.section import Count, Positive, Rate, Section, Share

UNRELATED = ("tracking", "resume", "conf_sha")  # sections that determine no result: dvc.yaml lists the first two for no stage
METRICS = Path(__file__).parents[1] / "evaluation" / "metrics"
# name:password@ of a database as SQLAlchemy reads it (with / ? # in it, too); or password=, sslpassword=, PWD= in a query or odbc_connect=
PASSWORD = re.compile(r"^(?!https?:)[^/]*//[^/:]*:[^@]*@|(password|passwd|pwd)\s*=", re.IGNORECASE)


class Model(Section):
    """conf/model: the base model and how it is loaded."""

    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    """Short name, used in reports and for the folder of the converted weights."""
    source: Literal["package", "hub", "local", "tiny"]
    """Where the weights are: an installed Python package (GGUF), the Hugging Face hub, a folder, or built in place (tests)."""
    path: str
    """package: `module:file.gguf`; hub: `owner/name`; local: a folder; tiny: a config class of transformers."""
    revision: Annotated[str, Field(min_length=1)]
    """hub: the commit, 40 hex digits; package: its version; local: anything that names what is in the folder."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    """sha256 of the weights file (package, local); null where the revision is a commit, which pins the bytes itself."""
    license: str
    """Licence of the base model, as an SPDX name; carried on into the model card."""
    loader: Literal["transformers", "unsloth"]
    """unsloth: FastLanguageModel, CUDA only."""
    dtype: Literal["float32", "bfloat16", "float16"]
    """Type of the base model's weights, and of all arithmetic; float32 on CPUs without bfloat16 units (bfloat16 was 20 times slower)."""
    device: Literal["cpu", "cuda"]
    """Where it runs; never chosen by the machine, because the device decides the bytes."""

    @model_validator(mode="after")
    def _is_pinned(self) -> Self:
        """Refuse weights that nothing pins: a branch of a hub repository, a file without its sha256."""
        if self.source == "hub" and not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            raise ValueError(
                f"found revision={self.revision!r} with source=hub, expected a commit, 40 hex digits; `hf models info {self.path}` shows it"
            )
        if self.source in ("package", "local") and self.sha256 is None:
            raise ValueError(f"found sha256=null with source={self.source}, expected the sha256 of the weights; `sha256sum` prints it")
        return self


class Prepare(Section):
    """conf/prepare: what is done with records of any source."""

    max_records: Positive | None
    """At most this many training records: of each opening of a prompt (its first three words) in turn, the one whose answer teaches most
    (its different words / (its words + 30)); null: all. 1,000 good ones beat 10,000 poor ones."""
    max_pairs: Positive | None
    """At most this many pairs to train on, chosen likewise; null: all."""
    min_records: Positive
    """Refuse to go on with fewer training records than this."""
    enough_records: Positive
    """Warn of more training records than this, which cost time and seldom help."""
    processes: Positive
    """Processes that examine records; their number changes no byte of what comes out."""


class Format(Section):
    """conf/format: records → token ids, through the model's own chat template."""

    max_length: Positive
    """Tokens a record may have, prompt and answer together."""
    overlong: Literal["refuse", "drop", "cut"]
    """What happens to longer records: refuse stops with a list of them; drop leaves them out, cut shortens them, and both count them."""
    truncation_side: Literal["left", "right"]
    """Where cut takes from: left, the prompt's beginning, never an answer's; right, the last answer's end, and its end token with it."""
    turns: Literal["all", "last"]
    """Which answers of a conversation are learned: every one of the assistant's, or the last."""
    samples: Positive
    """Records of each file shown in reports/format.html."""
    processes: Positive
    """Processes that encode, where a file has more than 5,000 records; the result is the same for any number."""


class Guards(Section):
    """Guard rails of a training, overruled by raising them."""

    max_passes: Annotated[float, Field(gt=0)]
    """How often a record may be learned from, by num_train_epochs or max_steps; more overfits, and is refused."""


class _Training(Section):
    """What training of any method has in common; names are transformers.TrainingArguments'."""

    learning_rate: Rate
    """Peak of the schedule. LoRA: 1e-4 to 1e-3 work; 1e-2 makes a model forget everything."""
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"]
    warmup_ratio: Share
    """Share of the steps over which the learning rate rises."""
    num_train_epochs: Annotated[float, Field(gt=0)]
    """Passes over the data; 1 to 3, more overfits."""
    max_steps: Positive | None
    """Stop after this many optimizer steps; null: after num_train_epochs."""
    per_device_train_batch_size: Positive
    """Records in memory at once, on each device."""
    gradient_accumulation_steps: Positive
    """Micro-batches an optimizer step; the effective batch is this × the batch size × the number of processes."""
    weight_decay: Annotated[float, Field(ge=0)]
    max_grad_norm: Annotated[float, Field(gt=0)]
    """Gradients are scaled down to this norm."""
    optim: Literal["adamw_torch", "adamw_torch_fused", "adamw_8bit"]
    gradient_checkpointing: bool
    """Recompute activations in the backward pass: a third slower, far less memory."""
    guards: Guards


class _Supervised(_Training):
    """What SFT of any method has beside it; names are trl.SFTConfig's."""

    packing: bool
    """Several records in one row, none of which sees another; batch sizes then count rows."""
    max_length: Positive
    """Tokens of a packed row; unused without packing."""


class _Lora(Section):
    """LoRA's own settings; names are peft.LoraConfig's."""

    r: Positive
    """Rank of the adapter. Higher: more capacity, more memory."""
    lora_alpha: Positive
    """The adapter's output is scaled by lora_alpha / r."""
    lora_dropout: Share
    """Dropout before the adapter, while training."""
    target_modules: Literal["all-linear"] | list[str]
    """Modules that get an adapter: all-linear is every linear layer but the output layer."""

    @field_validator("target_modules", mode="before")
    @classmethod
    def _names_modules(cls, modules: object) -> object:
        """Refuse anything else in one line; pydantic would have one for each type that it may be."""
        listed = isinstance(modules, list) and modules and all(isinstance(name, str) for name in modules)
        if modules != "all-linear" and not listed:
            raise ValueError(f"found {modules!r}, expected all-linear, or a list of names of modules, one at least")
        return modules


class Lora(_Supervised, _Lora):
    """conf/train/lora and conf/train/qlora."""

    method: Literal["lora", "qlora"]
    """qlora: the base in 4-bit (nf4, double quantisation), a quarter of the weights' memory."""


class Full(_Supervised):
    """conf/train/full: every weight is trained; 16 bytes a parameter with AdamW in float32."""

    method: Literal["full"]


class _Reference(Section):
    """What the stage reference has for any pairs."""

    batch_size: Positive
    """Answers scored, and sampled, at once."""


class Given(_Reference):
    """conf/reference/default: the prepared pairs, with the trained model's log-probabilities."""

    pairs: Literal["given"]
    """given: near misses of the embedded data, or your file."""


class OnPolicy(_Reference):
    """conf/reference/on_policy: pairs of the trained model's own answers to prompts that supervised fine-tuning never saw."""

    pairs: Literal["on_policy"]
    """on_policy: sampled from models/train, judged by exact match."""
    samples: Positive
    """Answers to each prompt."""
    temperature: Annotated[float, Field(gt=0)]
    """Logits are divided by it before an answer is drawn; 1: the model as it is."""
    top_p: Rate
    """Each token is drawn from the most likely ones that have this share of the probability; 1: from all."""
    max_new_tokens: Positive
    """An answer that has not ended by then is cut, which is wrong."""
    chosen: Literal["expected", "sampled"]
    """expected: the record's own answer; sampled: a right sample where there is one, the record's own answer elsewhere."""
    min_pairs: Positive
    """Refuse to go on with fewer pairs than this."""


class _Dpo(_Training):
    """What DPO of any method has beside it."""

    beta: Annotated[float, Field(gt=0)]
    """How dearly a departure from the reference is paid for; 0.1 is TRL's default."""
    rpo_alpha: Annotated[float, Field(ge=0)]
    """Weight of the chosen answers' own loss, nats a token, added to DPO's (Pang et al. 2024); 0: plain DPO."""


class DpoAdapter(_Dpo, _Lora):
    """conf/dpo/lora: after LoRA the adapter of models/train is trained on, as it is; after full tuning a new one with its own settings."""

    method: Literal["lora"]


class DpoFull(_Dpo):
    """conf/dpo/full: after full tuning, every weight is trained on; the reference is models/train, by its log-probabilities."""

    method: Literal["full"]


class Answer(Section):
    """conf/answer: greedy answers to the test prompts, and likelihoods of the validation records and held-out pairs."""

    which: Literal["base", "train", "dpo"]
    """The model that is asked; dvc.yaml says it on the command line, once for each."""
    batch_size: Positive
    """Prompts, sorted by length, decoded at once; records scored at once."""
    max_new_tokens: Positive
    """An answer that has not ended by then is cut, and counted as cut."""
    limit: Positive | None
    """At most this many test prompts of each slice, validation records and held-out pairs; null: all."""


class Evaluate(Section):
    """conf/evaluate: what is made of the answers."""

    metrics: list[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]]
    """Metric modules under finetune/evaluation/metrics, loaded by the `evaluate` library."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    """Of the bootstrap intervals."""
    resamples: Annotated[int, Field(ge=100)]
    """Bootstrap resamples."""
    samples: Positive
    """Records shown side by side in reports/samples.jsonl."""
    gates: dict[Annotated[str, Field(min_length=1)], float]
    """Dotted key of a number in reports/evaluate.json → what it must reach at least, for a model to be promoted; {}: nothing is asked."""

    @field_validator("metrics")
    @classmethod
    def _metrics_exist(cls, metrics: list[str]) -> list[str]:
        """Refuse a metric without a module, and a list without the metric that verdicts and gates are made of."""
        known = sorted(module.stem for module in METRICS.glob("*/*.py") if module.stem == module.parent.name)
        if unknown := [name for name in metrics if name not in known]:
            raise ValueError(f"found {', '.join(map(repr, unknown))}, expected names of folders in {METRICS.name}/: {', '.join(known)}")
        if "exact_match" not in metrics or len(set(metrics)) < len(metrics):
            raise ValueError(f"found {metrics}, expected exact_match among them, which the samples are judged by, and each only once")
        return metrics


class Export(Section):
    """conf/export: what is shipped, always beside manifest and model card."""

    adapter: bool
    """The adapter alone, for who has the base model."""
    merged: bool
    """Base and adapter as one model that plain transformers loads."""
    dtype: Literal["float32", "bfloat16", "float16"]
    """Type of the merged weights."""
    max_shard_size: Annotated[str, Field(pattern=r"^[1-9]\d*(MB|GB)$")]
    """Merged weights are cut into files of at most this size."""

    @model_validator(mode="after")
    def _something_is_exported(self) -> Self:
        """Refuse an export of nothing."""
        if not self.adapter and not self.merged:
            raise ValueError("found adapter=false and merged=false, expected one of them true; set export.merged=true")
        return self


class Tracking(Section):
    """conf/tracking: MLflow. Determines no result, so changing it reruns nothing."""

    enabled: bool
    uri: str | None
    """null: sqlite in your repository; else an address, without a password: that belongs in MLFLOW_TRACKING_PASSWORD."""
    experiment: Annotated[str, Field(min_length=1)]
    model: Annotated[str, Field(pattern=r"^[\w.-]+$")] | None
    """Name under which the registry has what is exported, each as a version; null: model.name."""

    @field_validator("uri")
    @classmethod
    def _without_password(cls, uri: str | None) -> str | None:
        """Refuse a password, which would be written to params.yaml and committed; the message does not repeat it."""
        if uri is not None and _has_password(uri):
            remedy = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment instead, or a database's own PGPASSWORD"
            raise ValueError(f"found a password in the address, expected none; {remedy}")
        return uri


class Resume(Section):
    """conf/resume: what a killed stage goes on from. Determines no result, so changing it reruns nothing."""

    save_seconds: Annotated[float, Field(ge=0)] | None
    """Seconds between two checkpoints of a training, stretched so that they take at most 2 % of its time, to 5 minutes at most; 0: after
    each step; null: nothing is kept of any stage, and a killed one starts from its beginning."""
    save_total_limit: Positive
    """Checkpoints kept, the newest."""
    disk_full: Literal["continue", "stop"]
    """When the disk is full while a checkpoint is written: go on without it, or end the stage with the last good one."""


class Launch(Section):
    """conf/launch: how train and dpo are started; dvc.yaml puts `command` before `-m stages.train`."""

    command: str
    processes: Positive


class Config(Section):
    """A whole run, as in params.yaml. A stage gets only the sections that dvc.yaml lists for it, and `tracking`."""

    seed: Count
    """Of everything that draws: splits, initial adapters, order of the data, dropout, bootstrap."""
    threads: Positive
    """CPU threads of one process; a setting and not a discovery."""
    instructions: Literal["native", "avx2", "compatible"]
    """Which code is used on the CPU: native, the fastest there is for it; avx2, the same on all processors of one maker that have AVX2;
    compatible, the same on those of every maker (finetune/instructions.py). Both want the optimizer adamw_torch_fused."""
    conf_sha: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Fingerprint of conf/ as it was composed; the stage `check` compares it."""
    model: Model
    data: Annotated[SmartHome | Files, Field(discriminator="source")]
    prepare: Prepare
    format: Format
    train: Annotated[Lora | Full, Field(discriminator="method")]
    reference: Annotated[Given | OnPolicy, Field(discriminator="pairs")]
    dpo: Annotated[DpoAdapter | DpoFull, Field(discriminator="method")]
    answer: Answer
    evaluate: Evaluate
    export: Export
    tracking: Tracking
    resume: Resume
    launch: Launch

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        """Refuse settings that are each fine and together are not; one line each."""
        train, model, problems = self.train.method, self.model, []
        if self.dpo.method == "full" and train != "full":
            problems.append(
                f"dpo.method: found 'full' after train.method={train}, expected 'lora', which trains that adapter on; set dpo=lora"
            )
        if model.loader == "unsloth" and model.device != "cuda":
            problems.append(
                f"model.loader: found 'unsloth' with model.device={model.device}, expected model.device=cuda, all that it runs on"
            )
        if self.train.packing and model.loader == "unsloth":
            problems.append(
                "train.packing: found true with model.loader=unsloth, expected false: its attention makes no mask of restarted positions, "
                "so records would see each other; set model.loader=transformers"
            )
        if self.train.packing and self.train.max_length < self.format.max_length:
            problems.append(
                f"train.max_length: found {self.train.max_length} with train.packing=true, expected at least "
                f"format.max_length={self.format.max_length}, what a record may have"
            )
        if self.instructions != "native" and model.device == "cpu":
            problems += [
                f"{name}.optim: found {optim!r} with instructions={self.instructions}, expected 'adamw_torch_fused': in the others torch "
                "takes square roots by MKL, which on some processors begins with the processor's own estimate, each model's another"
                for name, optim in (("train", self.train.optim), ("dpo", self.dpo.optim))
                if optim != "adamw_torch_fused"
            ]
        if self.launch.processes > 1 and "nproc-per-node" not in self.launch.command:
            problems.append(
                f"launch.processes: found {self.launch.processes} with launch.command={self.launch.command!r}, "
                "expected 1, which is all that it starts; set launch=distributed"
            )
        if problems:
            raise ValueError("\n".join(problems))
        return self


def _has_password(uri: str) -> bool:
    """Whether an address of MLflow's has a password in it, as its client or SQLAlchemy would read it."""
    if PASSWORD.search(unquote(uri)):
        return True
    if not re.match(r"https?://", uri, re.IGNORECASE):
        return False
    parts = urlsplit(uri)
    try:
        parts.port  # noqa: B018  # raises where a password with / ? or # in it would be the port
    except ValueError:
        return True
    return parts.password is not None
