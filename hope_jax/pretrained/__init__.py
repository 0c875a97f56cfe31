"""Pretrained models of other makers, as models of hope_jax.

A decoder of the Llama form is a model here: attention with rotary positions, then an MLP, which
is a CMS of one period. Nothing is trained or approximated on the way; what a converted model
then learns from what it reads is a choice of levels and rates (ad-hoc level stacking, section
7.3 of the paper).

    files       gguf_file.py, safetensors_folder.py   weights by role, settings, tokenizer
    the form    llama.py                              to configuration and parameters
    tokenizers  gguf_tokenizer.py                     of GGUF files; folders bring their own
    together    convert.py                            to a checkpoint
"""

from hope_jax.pretrained.convert import convert, read_pretrained
from hope_jax.pretrained.llama import LlamaForm

__all__ = ["LlamaForm", "convert", "read_pretrained"]
