"""A model of two layers and a tokenizer of a few hundred tokens, built in place: every stage in seconds, for tests."""

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, GenerationConfig, PretrainedConfig, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from finetune.config.schema import Model
from finetune.errors import ModelError

START, END, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
VOCABULARY = 512
SEED = 0  # of the initial weights; not the run's, because a base model is the same in every run

TEXT = """\
Turn on the light in the kitchen. Turn off the fan in the bedroom. Open the blinds upstairs, close the garage door.
Set the temperature of the living room to 21 degrees. What is the state of the front door? Is the lamp in the office on?
{"intent": "HassTurnOn", "name": "light", "area": "kitchen"} {"intent": "HassTurnOff", "name": "fan", "area": "bedroom"}
{"intent": "HassClimateSetTemperature", "temperature": 21} {"intent": "HassGetState", "name": "door", "state": "open"}
Answer with the call that does what was asked, as JSON on one line, and with nothing else.
"""

TEMPLATE = (
    "{% for message in messages %}"
    f"{{{{ '{START}' + message['role'] + '\\n' + message['content'] + '{END}' + '\\n' }}}}"
    "{% endfor %}"
    f"{{% if add_generation_prompt %}}{{{{ '{START}assistant\\n' }}}}{{% endif %}}"
)


def build(model: Model, folder: Path) -> None:
    """Write config.json, model.safetensors and the tokenizer of a two-layer model of the config class that model.path names.

    Raises:
        ModelError: transformers has no such class, or it is none of a causal language model.
    """
    config_class = getattr(transformers, model.path, None)
    if config_class is None or config_class not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelError(
            f"model.path: found {model.path!r}, expected a config class of a causal language model in transformers, such as LlamaConfig"
        )
    tokenizer = _tokenizer()
    config: PretrainedConfig = config_class(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        built = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    built.generation_config = GenerationConfig(eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id)
    built.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE, so that any text can be encoded; trained on TEXT."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, START, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT.splitlines(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        chat_template=TEMPLATE,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
