"""
The progress of a job on the terminal: a live bar, or a line every few seconds.

Progress goes to standard error; standard output is for results.

    views  the views, and which one suits the terminal
    bar    the live bar
    line   the progress in one line
"""

from .line import progress_text
from .views import LINE_EVERY_S, Lines, Silent, View, view

__all__ = ["LINE_EVERY_S", "Lines", "Silent", "View", "progress_text", "view"]
