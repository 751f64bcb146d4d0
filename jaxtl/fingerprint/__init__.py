"""Digests of programs, of host code and of values: equal digests, equal numbers."""

from jaxtl.fingerprint.programs import (
    Fingerprint,
    combined,
    of_jaxpr,
    of_program,
    of_traced,
    of_value,
)
