from __future__ import annotations

from typing import TYPE_CHECKING

from django.views.decorators.csrf import csrf_exempt

from workspaces.api.errors import error_response

if TYPE_CHECKING:
    from django.http import HttpRequest, JsonResponse


@csrf_exempt
def missing(request: HttpRequest) -> JsonResponse:
    """Everything below /api/v1 that is not there, whatever the method."""
    del request
    return error_response(404, "not_found", "There is no such call. See /api/v1/docs.")
