"""Presentation: views (plain data), and renderers of views: plotly figures, terminal text, one HTML page.

Views need neither torch nor plotly; plotly is imported by `figures` (and by `html`, which embeds it) only.
"""
