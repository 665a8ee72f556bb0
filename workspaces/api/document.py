"""The OpenAPI document and the page that shows it: for everybody, one version, one language."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework.renderers import JSONRenderer
from rest_framework.views import APIView

from workspaces.api.reading import Input, read

if TYPE_CHECKING:
    from rest_framework.request import Request
    from rest_framework.response import Response


class _SchemaIn(Input):
    also = frozenset({"format"})  # read before any view is asked


class _DocsIn(Input):
    also = frozenset({"script"})


class _Public(APIView):
    """For everybody. What is refused is told in the one shape, not as YAML or a page."""

    permission_classes = ()
    authentication_classes = ()
    asked: ClassVar[type[Input]]

    @extend_schema(exclude=True)
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        read(self.asked, request)
        answer: Response = super().get(request, *args, **kwargs)  # type: ignore[misc]  # of the view beside it
        return answer

    def handle_exception(self, exc: Exception) -> Response:
        self.request.accepted_renderer, self.request.accepted_media_type = JSONRenderer(), JSONRenderer.media_type
        return super().handle_exception(exc)


class SchemaView(_Public, SpectacularAPIView):
    """The library's puts any `version` of the address into a header."""

    asked = _SchemaIn


class DocsView(_Public, SpectacularSwaggerSplitView):
    asked = _DocsIn
