"""The parts of the HTML page: template, style and script files, and one module for each kind of section."""
