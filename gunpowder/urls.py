from django.contrib import admin
from django.urls import include, path, re_path
from django.views.generic import RedirectView

from gunpowder import health
from workspaces.api.missing import missing
from workspaces.web import views
from workspaces.web.gate import gate
from workspaces.web.own_password import own_password

admin.site.site_header = "Gunpowder"
admin.site.site_title = "Gunpowder"
admin.site.index_title = "Administration"

urlpatterns = [
    path("_gate", gate),
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("metrics", health.metrics),
    # One log-in and one log-out for all: throttled, and ending editor sessions as well.
    path("admin/login/", views.admin_login),
    path("admin/logout/", views.logout),
    path("admin", RedirectView.as_view(url="/admin/")),
    path("admin/password_change/", admin.site.admin_view(own_password)),
    path("admin/", admin.site.urls),
    path("api/v1/", include("workspaces.api.urls")),
    re_path(r"^api(?:/.*)?$", missing),
    path("", include("workspaces.web.urls")),
]

handler400 = "workspaces.web.views.bad_request"
handler403 = "workspaces.web.views.denied"
handler404 = "workspaces.web.views.not_found"
handler500 = "gunpowder.errors.server_error"
