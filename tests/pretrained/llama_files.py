"""A small model of the Llama form by its equations alone, and files that hold it."""

import json

import numpy as np

VOCAB, DIM, DEPTH, HEADS, GROUPS, HIDDEN = 300, 16, 3, 4, 2, 24
SIZE = DIM // HEADS
EPS, THETA = 1e-5, 500.0


def make_weights(seed=0, *, bias=False, tied=True, hidden=HIDDEN):
    """Weights by their names in the Hugging Face layout; matrices are [outputs, inputs]."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32) * shape[-1] ** -0.5
    norm = lambda: (1 + 0.2 * rng.normal(size=DIM)).astype(np.float32)
    weights = {"model.embed_tokens.weight": draw(VOCAB, DIM), "model.norm.weight": norm()}
    if not tied:
        weights["lm_head.weight"] = draw(VOCAB, DIM)
    for block in range(DEPTH):
        here = f"model.layers.{block}."
        weights[here + "input_layernorm.weight"] = norm()
        weights[here + "post_attention_layernorm.weight"] = norm()
        for role, rows in (("q", DIM), ("k", GROUPS * SIZE), ("v", GROUPS * SIZE)):
            weights[f"{here}self_attn.{role}_proj.weight"] = 2 * draw(rows, DIM)
            if bias:
                weights[f"{here}self_attn.{role}_proj.bias"] = draw(rows)
        weights[here + "self_attn.o_proj.weight"] = draw(DIM, DIM)
        weights[here + "mlp.gate_proj.weight"] = draw(hidden, DIM)
        weights[here + "mlp.up_proj.weight"] = draw(hidden, DIM)
        weights[here + "mlp.down_proj.weight"] = draw(DIM, hidden)
    return weights


def forward(weights, ids_T, *, depth=DEPTH, heads=HEADS, groups=GROUPS, eps=EPS, rates=None):
    """Logits of every token in float64, by plain loops over blocks and heads."""
    table = weights["model.embed_tokens.weight"].astype(np.float64)
    x_TD = table[ids_T]
    time, dim = x_TD.shape
    size = dim // heads
    if rates is None:
        rates = THETA ** (-np.arange(size // 2) / (size // 2))
    angle_TK = np.arange(time)[:, None] * rates[None]

    def normed(x, scale):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * scale

    def turned(x_TK):
        a, b = x_TK[:, : size // 2], x_TK[:, size // 2 :]
        cos, sin = np.cos(angle_TK), np.sin(angle_TK)
        return np.concatenate([a * cos - b * sin, a * sin + b * cos], axis=1)

    for block in range(depth):
        get = lambda name, b=block: weights[f"model.layers.{b}.{name}"]
        n_TD = normed(x_TD, get("input_layernorm.weight"))
        q, k, v = (n_TD @ get(f"self_attn.{r}_proj.weight").T for r in "qkv")
        if f"model.layers.{block}.self_attn.q_proj.bias" in weights:
            q, k, v = (
                x + get(f"self_attn.{r}_proj.bias")
                for r, x in zip("qkv", (q, k, v), strict=True)
            )
        read = []
        for head in range(heads):
            group = head // (heads // groups)
            mine, shared = (slice(i * size, (i + 1) * size) for i in (head, group))
            score_TS = turned(q[:, mine]) @ turned(k[:, shared]).T / np.sqrt(size)
            score_TS[np.triu_indices(time, 1)] = -np.inf
            weight_TS = np.exp(score_TS - score_TS.max(-1, keepdims=True))
            weight_TS /= weight_TS.sum(-1, keepdims=True)
            read.append(weight_TS @ v[:, shared])
        x_TD = x_TD + np.concatenate(read, axis=1) @ get("self_attn.o_proj.weight").T
        n_TD = normed(x_TD, get("post_attention_layernorm.weight"))
        gate_TF = n_TD @ get("mlp.gate_proj.weight").T
        hidden_TF = gate_TF / (1 + np.exp(-gate_TF)) * (n_TD @ get("mlp.up_proj.weight").T)
        x_TD = x_TD + hidden_TF @ get("mlp.down_proj.weight").T
    head = weights.get("lm_head.weight", table)
    return normed(x_TD, weights["model.norm.weight"]) @ head.T.astype(np.float64)


def byte_level_tokenizer():
    """A byte-level `tokenizers.Tokenizer` with a few merges and one special token."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("\u0120", "the"), ("e", "r")]
    tokens = ["<|endoftext|>", *alphabet, *("".join(pair) for pair in merges)]
    model = models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer, tokens, merges


def settings(weights, **changes):
    """The content of config.json."""
    tied = "lm_head.weight" not in weights
    biased = "model.layers.0.self_attn.q_proj.bias" in weights
    return {
        "model_type": "qwen2" if biased else "llama",
        "hidden_act": "silu",
        "hidden_size": DIM,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": HEADS,
        "num_key_value_heads": GROUPS,
        "intermediate_size": HIDDEN,
        "max_position_embeddings": 64,
        "rms_norm_eps": EPS,
        "rope_theta": THETA,
        "vocab_size": VOCAB,
        "tie_word_embeddings": tied,
    } | changes


def write_folder(folder, weights, *, parts=1, **changes):
    """The Hugging Face layout, in one file or several with an index."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(settings(weights, **changes)))
    (folder / "tokenizer.json").write_text(byte_level_tokenizer()[0].to_str())
    if parts == 1:
        save_file(weights, folder / "model.safetensors")
        return folder
    where = {}
    for part in range(parts):
        name = f"model-{part + 1:05d}-of-{parts:05d}.safetensors"
        mine = {k: w for i, (k, w) in enumerate(weights.items()) if i % parts == part}
        save_file(mine, folder / name)
        where |= dict.fromkeys(mine, name)
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


_GGUF = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_GGUF_WHOLE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def write_gguf(
    path,
    weights,
    *,
    kind="llama",
    extra=None,
    tokenizer="gpt2",
    quantise=(),
    begin=None,
    end=None,
    parts=1,
):
    """The GGUF format; of the kind llama queries and keys turn in neighbouring pairs.

    `quantise` names weights (as GGUF does, without the block) that are stored as Q8_0.
    `begin` is the token that texts begin with, and whether the file says so.
    """
    import gguf

    writer = gguf.GGUFWriter(path, kind)
    writer.add_name("small")
    writer.add_block_count(DEPTH)
    writer.add_context_length(64)
    writer.add_embedding_length(DIM)
    hidden = len(weights.get("model.layers.0.mlp.up_proj.weight", ()))
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(GROUPS)
    writer.add_layer_norm_rms_eps(EPS)
    writer.add_rope_freq_base(THETA)
    if tokenizer == "gpt2":
        _, tokens, merges = byte_level_tokenizer()
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("smollm")
        writer.add_token_list(tokens)
        writer.add_token_types([3] + [1] * (len(tokens) - 1))
        writer.add_token_merges([" ".join(pair) for pair in merges])
    else:
        pieces, scores, kinds = tokenizer
        writer.add_tokenizer_model("llama")
        writer.add_token_list(pieces)
        writer.add_token_scores(scores)
        writer.add_token_types(kinds)
        writer.add_unk_token_id(0)
        writer.add_eos_token_id(1)
        writer.add_add_space_prefix(False)
    if parts > 1:
        writer.add_uint16("split.count", parts)
    if end is not None:
        writer.add_eos_token_id(end)
    if begin is not None:
        writer.add_bos_token_id(begin[0])
        writer.add_add_bos_token(begin[1])
    for name, tensor in (extra or {}).items():
        writer.add_tensor(name, tensor)
    for name, weight in weights.items():
        *_, last = name.split(".")
        if name in _GGUF_WHOLE:
            writer.add_tensor(_GGUF_WHOLE[name], weight)
            continue
        block, role = name.removeprefix("model.layers.").split(".", 1)
        role = _GGUF[role.removesuffix(f".{last}")]
        if kind == "llama" and role in ("attn_q", "attn_k"):
            heads = HEADS if role == "attn_q" else GROUPS
            halves = weight.reshape(heads, 2, SIZE // 2, *weight.shape[1:])
            weight = halves.swapaxes(1, 2).reshape(weight.shape)
        name = f"blk.{block}.{role}.{last}"
        if role in quantise:
            q8 = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(weight, q8), raw_dtype=q8)
        else:
            writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
