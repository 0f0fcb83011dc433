"""Sphinx's settings; `tools/build_site.py` puts this beside the pages that it makes."""

project = "interp"
extensions = ["myst_parser"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
smartquotes = False  # a quotation mark is what is typed
highlight_language = "text"
html_theme = "furo"
html_title = "interp"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_extra_path = ["extra"]
html_show_copyright = False
html_copy_source = True
html_show_search_summary = False  # it would fetch pages, which those of a folder cannot
