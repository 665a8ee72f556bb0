from django.contrib import admin
from django.urls import include, path

from gunpowder import health
from workspaces.web.gate import gate

admin.site.site_header = "Gunpowder"
admin.site.site_title = "Gunpowder"
admin.site.index_title = "Administration"

urlpatterns = [
    path("_gate", gate),
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("metrics", health.metrics),
    path("admin/", admin.site.urls),
    path("api/v1/", include("workspaces.api.urls")),
    path("", include("workspaces.web.urls")),
]

handler400 = "workspaces.web.views.bad_request"
handler403 = "workspaces.web.views.denied"
handler404 = "workspaces.web.views.not_found"
handler500 = "gunpowder.errors.server_error"
