"""llama-server's flags as the embedded runtime understands them: one table onto `CommonParams`.

Owns which flags there are, how their values are read and which field each sets. It knows nothing of
the process that serves. The defaults are `xllamacpp`'s, which are llama.cpp's own.

Source: llama.cpp `common/arg.cpp`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

# `xllamacpp` has no type information.
Params = Any
Apply = Callable[[Params, str], None]


class Flag(NamedTuple):
    """One flag of llama-server that the embedded runtime knows."""

    names: tuple[str, ...]
    placeholder: str
    """What the value is; empty for a flag that takes none."""
    apply: Apply
    """Sets the value, or raises ValueError for a value that does not fit."""
    help: str


def set_path(params: Params, path: str, value: object) -> None:
    """Set the field of `params` that `path` names, such as `sampling.temp`."""
    *owners, name = path.split(".")
    for owner in owners:
        params = getattr(params, owner)
    setattr(params, name, value)


def switch(names: str, path: str, value: object, text: str) -> Flag:
    """Return a flag without a value that sets `path` to `value`."""
    return Flag(tuple(names.split()), "", lambda params, _: set_path(params, path, value), text)


def typed(
    names: str, placeholder: str, path: str, kind: Callable[[str], object], text: str
) -> Flag:
    """Return a flag whose value, read by `kind`, goes to `path`."""
    return Flag(
        tuple(names.split()),
        placeholder,
        lambda params, raw: set_path(params, path, kind(raw)),
        text,
    )


def whole(names: str, path: str, text: str) -> Flag:
    """Return a flag whose value is a whole number."""
    return typed(names, "N", path, int, text)


def real(names: str, path: str, text: str) -> Flag:
    """Return a flag whose value is a number."""
    return typed(names, "X", path, float, text)


def plain(names: str, placeholder: str, path: str, text: str) -> Flag:
    """Return a flag whose value is taken as it is."""
    return typed(names, placeholder, path, str, text)


def one_of(names: str, path: str, values: Mapping[str, object], text: str) -> Flag:
    """Return a flag whose value is a word of a list."""

    def pick(raw: str) -> object:
        if raw not in values:
            raise ValueError(f"one of {', '.join(values)}")
        return values[raw]

    return typed(names, "|".join(values), path, pick, text)


def both(names: str, no_names: str, path: str, text: str) -> tuple[Flag, Flag]:
    """Return the flag that turns something on and the one that turns it off."""
    return switch(names, path, True, text), switch(no_names, path, False, f"not: {text}")


def sampled(names: str, path: str, bit: int, kind: Callable[[str], object], text: str) -> Flag:
    """Return a flag for a sampling default; `bit` keeps the model's own from replacing it."""

    def apply(params: Params, raw: str) -> None:
        set_path(params, f"sampling.{path}", kind(raw))
        params.sampling.user_sampling_config |= bit

    return Flag(tuple(names.split()), "N" if kind is int else "X", apply, text)


def set_context(params: Params, raw: str) -> None:
    """Set the context; 0 is all that the model has, and fitting to memory must not lessen it."""
    params.n_ctx = int(raw)
    if params.n_ctx == 0:
        # llama.cpp's mark for this, UINT32_MAX, in the signed field that the binding has.
        params.fit_params_min_ctx = -1


def set_parallel(params: Params, raw: str) -> None:
    """Set the number of slots."""
    params.n_parallel = int(raw)
    if params.n_parallel == 0 or params.n_parallel < -1:
        raise ValueError("at least 1, or -1 for the default")


def set_split(params: Params, raw: str) -> None:
    """Set the share of each GPU; the binding wants all 128 of them."""
    shares = [float(share) for share in raw.replace("/", ",").split(",")]
    params.tensor_split = shares + [0.0] * (len(params.tensor_split) - len(shares))


def set_fit_target(params: Params, raw: str) -> None:
    """Set how many MiB stay free on each device; one number holds for all."""
    margins = [int(mib) * 1024 * 1024 for mib in raw.split(",")]
    devices = len(params.fit_params_target)
    params.fit_params_target = (
        margins * devices
        if len(margins) == 1
        else margins + margins[-1:] * (devices - len(margins))
    )


def set_reranking(params: Params, _: str) -> None:
    """Serve `/v1/rerank`."""
    import xllamacpp

    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK


def set_template_options(params: Params, raw: str) -> None:
    """Set variables of the chat template from a JSON object; llama.cpp wants each value as JSON."""
    found = json.loads(raw)
    if not isinstance(found, dict):
        raise TypeError
    params.default_template_kwargs = {name: json.dumps(value) for name, value in found.items()}


def read_text(name: str) -> str:
    """Return what a file holds; a file that cannot be read is a value that does not fit."""
    try:
        return Path(name).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError("a file that can be read") from error


def read_keys(name: str) -> list[str]:
    """Return the keys in a file, one per line."""
    return [line for line in read_text(name).splitlines() if line]


def words(raw: str) -> set[str]:
    """Return the words of a comma-separated list."""
    return {word.strip() for word in raw.split(",") if word.strip()}


def listed(raw: str) -> list[str]:
    """Return the words of a comma-separated list, in order."""
    return [word for word in raw.split(",") if word]


def layers(raw: str) -> int:
    """Return a number of layers; llama.cpp's own numbers for the two words are negative."""
    return {"auto": -1, "all": -2}.get(raw) or int(raw)


def numbered(*names: str, first: int = 0) -> dict[str, object]:
    """Return the values of an enumeration: a number for each name."""
    return {name: number for number, name in enumerate(names, first)}


ON_OFF_AUTO: Final = {"on": 1, "off": 0, "auto": -1}
ON_OFF: Final = {"on": True, "off": False}
# ggml_type; the numbers are part of the GGUF format.
CACHE_TYPES: Final = {
    "f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "iq4_nl": 20,
    "bf16": 30,
}  # fmt: skip

FLAGS: Final[tuple[Flag, ...]] = (
    plain("-m --model", "FILE", "model.path", "model to serve; without it the demo model"),
    typed("-a --alias", "NAME,...", "model_alias", words, "names of the model in the API"),
    typed("--tags", "TAG,...", "model_tags", words, "tags of the model in the API"),
    plain("-mm --mmproj", "FILE", "mmproj.path", "multimodal projector"),
    *both("--mmproj-offload", "--no-mmproj-offload", "mmproj_use_gpu", "projector on the GPU"),
    # listening
    typed("--host", "ADDRESS", "hostnames", listed, "address, or a path that ends in .sock"),
    whole("--port", "port", "port; 0 is any free one"),
    typed("--api-key", "KEY,...", "api_keys", listed, "keys; better in LLAMA_API_KEY"),
    typed("--api-key-file", "FILE", "api_keys", read_keys, "keys, one per line"),
    plain("--ssl-key-file", "FILE", "ssl_file_key", "TLS key"),
    plain("--ssl-cert-file", "FILE", "ssl_file_cert", "TLS certificate"),
    plain("--api-prefix", "PREFIX", "api_prefix", "path before every route"),
    plain("--path", "FOLDER", "public_path", "static files to serve"),
    whole("-to --timeout", "timeout_read", "seconds that a read or write may take"),
    whole("--threads-http", "n_threads_http", "threads that serve HTTP"),
    whole("--sse-ping-interval", "sse_ping_interval", "seconds between pings on a silent stream"),
    plain("--cors-origins", "ORIGIN,...", "cors_origins", "origins allowed by CORS"),
    plain("--cors-methods", "METHOD,...", "cors_methods", "methods allowed by CORS"),
    plain("--cors-headers", "HEADER,...", "cors_headers", "headers allowed by CORS"),
    *both("--cors-credentials", "--no-cors-credentials", "cors_credentials", "credentials by CORS"),
    switch("--metrics", "endpoint_metrics", True, "GET /metrics"),
    switch("--props", "endpoint_props", True, "POST /props"),
    *both("--slots", "--no-slots", "endpoint_slots", "GET /slots"),
    plain("--slot-save-path", "FOLDER", "slot_save_path", "where slots can be saved"),
    plain("--media-path", "FOLDER", "media_path", "where file:// media may be read"),
    *both("--ui --webui", "--no-ui --no-webui", "ui", "web page at /"),
    whole("--sleep-idle-seconds", "sleep_idle_seconds", "unload after so many idle seconds"),
    # size and speed
    Flag(("-c", "--ctx-size"), "N", set_context, "context in tokens; 0 is the model's"),
    Flag(
        ("-np", "--parallel"),
        "N",
        set_parallel,
        "slots; -1, the default, is 4 that share the context",
    ),
    *both("-kvu --kv-unified", "-no-kvu --no-kv-unified", "kv_unified", "slots share the context"),
    whole("--kv-unified-per-slot", "kv_unified_per_slot", "context limit of each slot"),
    whole("-b --batch-size", "n_batch", "prompt tokens per step"),
    whole("-ub --ubatch-size", "n_ubatch", "prompt tokens per computation"),
    whole("-t --threads", "cpuparams.n_threads", "threads"),
    whole("-tb --threads-batch", "cpuparams_batch.n_threads", "threads for prompts"),
    whole("--poll", "cpuparams.poll", "0 to 100: how eagerly threads wait"),
    typed(
        "-ngl --gpu-layers --n-gpu-layers",
        "N|auto|all",
        "n_gpu_layers",
        layers,
        "layers on the GPU",
    ),
    one_of(
        "-sm --split-mode",
        "split_mode",
        numbered("none", "layer", "row", "tensor"),
        "how GPUs share",
    ),
    Flag(("-ts", "--tensor-split"), "X,...", set_split, "share of each GPU"),
    whole("-mg --main-gpu", "main_gpu", "GPU used first"),
    one_of("-fit --fit", "fit_params", ON_OFF, "fit what is not set to free memory"),
    Flag(("-fitt", "--fit-target"), "MIB,...", set_fit_target, "memory to leave free"),
    whole("-fitc --fit-ctx", "fit_params_min_ctx", "context that fitting leaves at least"),
    one_of("-fa --flash-attn", "flash_attn_type", ON_OFF_AUTO, "flash attention"),
    one_of("-ctk --cache-type-k", "cache_type_k", CACHE_TYPES, "type of the KV cache, keys"),
    one_of("-ctv --cache-type-v", "cache_type_v", CACHE_TYPES, "type of the KV cache, values"),
    switch("-nkvo --no-kv-offload", "no_kv_offload", True, "KV cache not on the GPU"),
    switch("-nr --no-repack", "no_extra_bufts", True, "weights not repacked"),
    switch("--no-op-offload", "no_op_offload", True, "operations not moved to the GPU"),
    switch("--no-host", "no_host", True, "no host buffer"),
    switch("--swa-full", "swa_full", True, "whole cache for sliding windows"),
    one_of(
        "-lm --load-mode",
        "load_mode",
        numbered("auto", "none", "mmap", "mlock", "mmap+mlock", "dio", first=-1),
        "how the file is read",
    ),
    switch("--mlock", "load_mode", 3, "keep the model in memory"),
    switch("--no-mmap", "load_mode", 0, "read the file instead of mapping it"),
    one_of(
        "--numa", "numa", numbered("distribute", "isolate", "numactl", first=1), "NUMA strategy"
    ),
    switch("--check-tensors", "check_tensors", True, "look for invalid weights"),
    *both("--warmup", "--no-warmup", "warmup", "run once before the first request"),
    switch("--offline", "offline", True, "no network"),
    # requests
    whole("-n --predict --n-predict", "n_predict", "tokens of an answer at most; -1 is no limit"),
    whole("--keep", "n_keep", "tokens kept when the context shifts"),
    *both("--context-shift", "--no-context-shift", "ctx_shift", "shift a full context"),
    *both(
        "-cb --cont-batching",
        "-nocb --no-cont-batching",
        "cont_batching",
        "batch requests together",
    ),
    *both("--cache-prompt", "--no-cache-prompt", "cache_prompt", "keep prompts in the slots"),
    whole("--cache-reuse", "n_cache_reuse", "least chunk of the cache to reuse by shifting"),
    whole("-cram --cache-ram", "cache_ram_mib", "MiB for prompts that left their slot"),
    whole("-ctxcp --ctx-checkpoints", "n_ctx_checkpoints", "checkpoints per slot"),
    *both(
        "--cache-idle-slots",
        "--no-cache-idle-slots",
        "cache_idle_slots",
        "keep idle slots' prompts",
    ),
    real("-sps --slot-prompt-similarity", "slot_prompt_similarity", "likeness that keeps a slot"),
    switch("--embedding --embeddings", "embedding", True, "serve embeddings"),
    Flag(("--rerank", "--reranking"), "", set_reranking, "serve /v1/rerank"),
    one_of("--pooling", "pooling_type", numbered("none", "mean", "cls", "last", "rank"), "pooling"),
    # chat
    *both("--jinja", "--no-jinja", "use_jinja", "chat templates in Jinja"),
    plain("--chat-template", "NAME|JINJA", "chat_template", "chat template"),
    typed("--chat-template-file", "FILE", "chat_template", read_text, "chat template in a file"),
    Flag(
        ("--chat-template-kwargs",), "JSON", set_template_options, "variables of the chat template"
    ),
    one_of(
        "--reasoning-format",
        "reasoning_format",
        numbered("none", "auto", "deepseek-legacy", "deepseek"),
        "where reasoning goes",
    ),
    one_of("-rea --reasoning", "enable_reasoning", ON_OFF_AUTO, "let the model reason"),
    whole("--reasoning-budget", "sampling.reasoning_budget_tokens", "tokens of reasoning at most"),
    *both(
        "--prefill-assistant", "--no-prefill-assistant", "prefill_assistant", "continue an answer"
    ),
    switch("-sp --special", "special", True, "show special tokens"),
    # sampling, where the request does not say
    whole("-s --seed", "sampling.seed", "seed; -1 is a random one"),
    plain("--samplers", "NAME;...", "sampling.samplers", "samplers in their order"),
    sampled("--temp --temperature", "temp", 64, float, "temperature"),
    sampled("--top-k", "top_k", 2, int, "top-k; 0 is off"),
    sampled("--top-p", "top_p", 4, float, "top-p; 1 is off"),
    sampled("--min-p", "min_p", 8, float, "min-p; 0 is off"),
    real("--typical --typical-p", "sampling.typ_p", "locally typical; 1 is off"),
    sampled("--xtc-probability", "xtc_probability", 16, float, "XTC probability"),
    sampled("--xtc-threshold", "xtc_threshold", 32, float, "XTC threshold"),
    sampled("--repeat-last-n", "penalty_last_n", 128, int, "tokens looked at for repeats"),
    sampled("--repeat-penalty", "penalty_repeat", 256, float, "repeat penalty; 1 is off"),
    real("--presence-penalty", "sampling.penalty_present", "presence penalty"),
    real("--frequency-penalty", "sampling.penalty_freq", "frequency penalty"),
    real("--dry-multiplier", "sampling.dry_multiplier", "DRY multiplier; 0 is off"),
    real("--dry-base", "sampling.dry_base", "DRY base"),
    whole("--dry-allowed-length", "sampling.dry_allowed_length", "DRY length"),
    whole("--dry-penalty-last-n", "sampling.dry_penalty_last_n", "tokens looked at for DRY"),
    real("--dynatemp-range", "sampling.dynatemp_range", "dynamic temperature; 0 is off"),
    real("--dynatemp-exp", "sampling.dynatemp_exponent", "dynamic temperature exponent"),
    sampled("--mirostat", "mirostat", 512, int, "Mirostat 1 or 2; 0 is off"),
    sampled("--mirostat-ent", "mirostat_tau", 1024, float, "Mirostat target entropy"),
    sampled("--mirostat-lr", "mirostat_eta", 2048, float, "Mirostat learning rate"),
    switch("--ignore-eos", "sampling.ignore_eos", True, "go on after the end token"),
    # positions
    one_of(
        "--rope-scaling",
        "rope_scaling_type",
        numbered("none", "linear", "yarn"),
        "how positions are scaled",
    ),
    typed("--rope-scale", "X", "rope_freq_scale", lambda raw: 1 / float(raw), "context factor"),
    real("--rope-freq-base", "rope_freq_base", "base frequency"),
    real("--rope-freq-scale", "rope_freq_scale", "frequency factor"),
    whole("--yarn-orig-ctx", "yarn_orig_ctx", "YaRN: context of the training"),
    real("--yarn-ext-factor", "yarn_ext_factor", "YaRN: extrapolation"),
    real("--yarn-attn-factor", "yarn_attn_factor", "YaRN: magnitude"),
    real("--yarn-beta-slow", "yarn_beta_slow", "YaRN: high correction"),
    real("--yarn-beta-fast", "yarn_beta_fast", "YaRN: low correction"),
    # log
    switch("-v --verbose --log-verbose", "verbosity", 2**31 - 1, "log everything"),
    whole("-lv --verbosity --log-verbosity", "verbosity", "how much is logged"),
    *both("--perf", "--no-perf", "show_timings", "timings in the log"),
)
