"""What an experiment found, as a terminal table, a Markdown page and one HTML page.

Everything is rendered from the plain records of `records`; nothing here knows of models.
"""

from vggbn.report.effects import Effects
from vggbn.report.html import write_html
from vggbn.report.records import Chart, Curve, Picture, Report, Table
from vggbn.report.tables import points_text, ratio_text
from vggbn.report.text import verdict_table

__all__ = [
    "Chart",
    "Curve",
    "Effects",
    "Picture",
    "Report",
    "Table",
    "points_text",
    "ratio_text",
    "verdict_table",
    "write_html",
]
