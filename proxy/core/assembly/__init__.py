"""Answers in one piece, put together from the streams that llama-server was asked for instead.

Owns the choice of the assembler for a route. The answer equals, member by member, what llama-server
would have answered, except for ids, times and the values of timings.
"""

from __future__ import annotations

from collections.abc import Mapping

from proxy.core.assembly.chat import ChatAssembler
from proxy.core.assembly.completion import CompletionAssembler
from proxy.core.assembly.completions import CompletionsAssembler
from proxy.core.assembly.messages import MessagesAssembler
from proxy.core.assembly.responses import ResponsesAssembler
from proxy.core.assembly.seam import MAX_ANSWER_BYTES, Answer, AnsweredError, Assembler, Question
from proxy.core.generation import (
    CHAT_ROUTES,
    NATIVE_ROUTES,
    RESPONSES_ROUTES,
    TEXT_ROUTES,
    can_be_streamed,
    wants_stream,
)

__all__ = [
    "MAX_ANSWER_BYTES",
    "Answer",
    "AnsweredError",
    "Assembler",
    "Question",
    "assembler_for",
]


def assembler_for(
    label: str, fields: Mapping[str, object], request_id: str = ""
) -> Assembler | None:
    """Return what puts the answer to a request together; None where nothing is to be.

    None is for a client that asked for a stream itself, and for what a stream cannot carry
    (`core.generation.can_be_streamed`).

    Args:
        label: The label of a route that generates.
        fields: The client's body.
        request_id: The exchange's, for the one answer that has to be named by us.
    """
    if wants_stream(fields) or not can_be_streamed(label, fields):
        return None
    if label in CHAT_ROUTES:
        return ChatAssembler()
    if label in NATIVE_ROUTES:
        return CompletionAssembler(fields)
    if label in TEXT_ROUTES:
        return CompletionsAssembler(fields)
    if label in RESPONSES_ROUTES:
        return ResponsesAssembler()
    return MessagesAssembler(fields, request_id)
