"""Paths of the pages. nginx sends `/_explain` and the editor's own three; they answer nobody else."""

from __future__ import annotations

from django.urls import path

from workspaces.web import editor_api, savings, views
from workspaces.web.explain import explain

urlpatterns = [
    path("", views.home, name="home"),
    path("login", views.LoginPage.as_view(), name="login"),
    path("logout", views.logout, name="logout"),
    path("savings", savings.page, name="savings"),
    path("savings.csv", savings.csv_file, name="savings-csv"),
    path("_explain", explain, name="explain"),
    path("code/user/<str:user_id>/_gunpowder/start", editor_api.start, name="editor-start"),
    path("code/user/<str:user_id>/_gunpowder/status", editor_api.status, name="editor-status"),
    path("code/user/<str:user_id>/_gunpowder/events", editor_api.events, name="editor-events"),
]
