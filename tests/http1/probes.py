"""All framing probes, in one table."""

from __future__ import annotations

from tests.http1.body_probes import CHUNKS, CODING, LENGTH
from tests.http1.head_probes import FIELDS, HOST, REQUEST_LINE, TARGET
from tests.http1.probe import Probe
from tests.http1.sequence_probes import LIMITS, SEQUENCE

PROBES: tuple[Probe, ...] = (
    *REQUEST_LINE,
    *TARGET,
    *HOST,
    *FIELDS,
    *LENGTH,
    *CODING,
    *CHUNKS,
    *SEQUENCE,
    *LIMITS,
)
