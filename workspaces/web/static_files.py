"""Static files under hashed names, the imports between script modules included."""

from __future__ import annotations

from django.contrib.staticfiles.storage import ManifestStaticFilesStorage


class HashedFiles(ManifestStaticFilesStorage):
    """Browsers keep what nginx serves here for ever, so an `import "./x.js"` must name the hashed file too."""

    support_js_module_import_aggregation = True
