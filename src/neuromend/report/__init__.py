"""The picture and the page that show what a fill did."""

from neuromend.report.case import ReportCase
from neuromend.report.page import render_page
from neuromend.report.picture import write_picture

__all__ = ["ReportCase", "render_page", "write_picture"]
