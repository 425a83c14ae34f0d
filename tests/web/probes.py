"""All framing probes, in one table."""

from __future__ import annotations

from tests.web.body_probes import CHUNKS, CODING, LENGTH
from tests.web.head_probes import FIELDS, HOST, REQUEST_LINE, TARGET
from tests.web.probe import Probe
from tests.web.sequence_probes import LIMITS, SEQUENCE

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
