"""String formats of JSON Schema as regular expressions, for texts that every validator accepts.

Each is within what its RFC allows and leaves out the corners where validators differ: years of four digits without a
leading zero, no leap seconds, dotted e-mail domains, host names whose labels hold no double hyphen.
"""

from __future__ import annotations

_YEAR = r"[1-9][0-9]{3}"
_LEAP = r"(?:[1-9][0-9](?:0[48]|[2468][048]|[13579][26])|(?:[2468][048]|[13579][26])00)"
_DATE = (
    rf"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    rf"|02-(?:0[1-9]|1[0-9]|2[0-8]))|{_LEAP}-02-29)"
)
_CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_TIME = rf"{_CLOCK}:[0-5][0-9](?:\.[0-9]{{1,9}})?(?:Z|[+-]{_CLOCK})"
_LABEL = r"[a-zA-Z0-9](?:-?[a-zA-Z0-9]){0,30}"
_LAST_LABEL = r"[a-zA-Z](?:-?[a-zA-Z0-9]){0,30}"
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_GROUP = r"[0-9a-fA-F]{1,4}"
_ATOM = r"[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]{1,20}"

_N = "[0-9]{1,6}"
_CLOCK_PARTS = rf"T(?:{_N}H(?:{_N}M(?:{_N}S)?)?|{_N}M(?:{_N}S)?|{_N}S)"
_DAY_PARTS = rf"(?:{_N}Y(?:{_N}M(?:{_N}D)?)?|{_N}M(?:{_N}D)?|{_N}D)"
_DURATION = rf"P(?:{_N}W|{_DAY_PARTS}(?:{_CLOCK_PARTS})?|{_CLOCK_PARTS})"

#: By name; other formats are dropped.
FORMATS: dict[str, str] = {
    "date": _DATE,
    "time": _TIME,
    "date-time": rf"{_DATE}T{_TIME}",
    "email": rf"{_ATOM}(?:\.{_ATOM}){{0,2}}@(?:{_LABEL}\.){{1,3}}{_LAST_LABEL}",
    "uuid": r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}",
    "ipv4": rf"(?:{_OCTET}\.){{3}}{_OCTET}",
    "ipv6": rf"(?:(?:{_GROUP}:){{7}}{_GROUP}|(?:{_GROUP}:){{1,5}}(?::{_GROUP}){{1,2}}|::(?:{_GROUP}:){{0,5}}{_GROUP})",
    "hostname": rf"(?:{_LABEL}\.){{0,3}}{_LAST_LABEL}",
    "duration": _DURATION,
}
