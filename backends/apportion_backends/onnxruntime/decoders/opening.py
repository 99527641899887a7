"""Opens a decoder of others: its graph with a cut head where that works, what it computes with, and its layouts."""

from __future__ import annotations

import numpy as np

from apportion.errors import ModelError
from apportion.protocols.model import ModelSpec
from apportion_backends.onnxruntime.decoders.cut_logits import operators, with_cut_logits
from apportion_backends.onnxruntime.decoders.files import DecoderFiles
from apportion_backends.onnxruntime.decoders.graph import DecoderGraph
from apportion_backends.onnxruntime.decoders.guard import GuardedDecoder
from apportion_backends.onnxruntime.decoders.probe import probe_decoder, same_when_cut
from apportion_backends.onnxruntime.decoders.session import DecoderSession
from apportion_backends.onnxruntime.decoders.signature import Signature, signature_of
from apportion_backends.onnxruntime.providers import Provider, open_graph
from apportion_backends.onnxruntime.tokenizer import tokenizer_of

__all__ = ["open_decoder"]

DYNAMIC = ("DynamicQuantizeLinear", "DynamicQuantizeMatMul")
HALF = "the model file computes in fp16; scores have about 3 digits"


def open_decoder(
    spec: ModelSpec, files: DecoderFiles, provider: Provider, threads: int | None, memory_budget: int | None
) -> DecoderSession:
    """Open a decoder.

    Args:
        spec: the model as the user named it.
        files: its files.
        provider: the execution provider.
        threads: threads for one operation.
        memory_budget: bytes that a batch may take.

    Raises:
        ModelError: it is not a decoder, is damaged, or gives logits that depend on later tokens; or the tokenizer is of
            another model.
    """
    name = str(files.graph)
    session = open_graph(files.graph, provider, threads)
    signature = signature_of(session, files)
    whole = DecoderGraph(session, signature, cut=False)
    vocabulary = signature.vocabulary or files.size("vocab_size")
    if vocabulary is None:
        raise ModelError(
            f"{name!r} cannot be scored: neither the graph nor a config.json or genai_config.json beside it states the "
            "size of its vocabulary."
        )
    tokenizer = tokenizer_of(spec, files.folder)
    highest = max(tokenizer.get_vocab().values(), default=0)
    if highest >= vocabulary:
        raise ModelError(
            f"The tokenizer ({type(tokenizer).__name__}) is of another model: it has token ids up to {highest:,}, and "
            f"{name!r} knows {vocabulary:,}. Give the model's own with tokenizer=."
        )
    traits = probe_decoder(whole, vocabulary, name)
    graph, cut_note = _cut(whole, files, provider, threads, vocabulary)
    graph = graph.varied(past_in_batches=traits.past_in_batches)
    dtype, notes = _computed_with(files, signature)
    return DecoderSession(
        GuardedDecoder(graph),
        files,
        traits,
        vocabulary,
        tokenizer,
        provider,
        memory_budget,
        dtype,
        (*notes, *traits.notes(), *cut_note),
    )


def _cut(
    whole: DecoderGraph, files: DecoderFiles, provider: Provider, threads: int | None, vocabulary: int
) -> tuple[DecoderGraph, tuple[str, ...]]:
    """The decoder with a head that reads only what is scored; the whole one, and a note, where that does not work."""
    content = with_cut_logits(files.graph)
    if content is not None:
        try:
            session = open_graph(content, provider, threads, folder=files.graph.parent, name=str(files.graph))
        except ModelError:
            session = None
        if session is not None:
            cut = DecoderGraph(session, whole.signature, cut=True)
            if same_when_cut(cut, whole, vocabulary):
                return cut, ()
    return whole, ("the head of this model file computes the logits of all positions, which takes memory and time",)


def _computed_with(files: DecoderFiles, signature: Signature) -> tuple[str, tuple[str, ...]]:
    """The numbers that a graph computes with, and a note on them."""
    found = operators(files.graph)
    bits = sorted(name.removeprefix("MatMulNBits") for name in found if name.startswith("MatMulNBits"))
    if bits:
        note = f"the model file has {' and '.join(bits)}-bit weights; its attributions are those of the quantised model"
        return f"int{bits[0]}", (note,)
    if any(name in found for name in ("MatMulInteger", "MatMulIntegerToFloat", "QLinearMatMul", *DYNAMIC)):
        return "int8", ("the model file has 8-bit weights; its attributions are those of the quantised model",)
    if np.float16 in (signature.past_dtype, signature.logits):
        return "float16", (HALF,)
    return "float32", ()
