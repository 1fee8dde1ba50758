"""A report as its part of a Markdown page."""

from vggbn.report.markdown import section_of, section_text


def markdown_of(report) -> str:
    return section_text(section_of(report, "full, digits", "make exp-x", "x"), "figures")
