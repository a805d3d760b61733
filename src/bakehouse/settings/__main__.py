"""``python -m bakehouse.settings PAGE``: write the table of settings into a page of the documentation."""

from __future__ import annotations

import sys
from pathlib import Path

from bakehouse.settings.table import with_table

page = Path(sys.argv[1])
page.write_text(with_table(page.read_text(encoding="utf-8")), encoding="utf-8")
