from django.urls import path, re_path

from workspaces.api import auth, document, savings, views
from workspaces.api.missing import missing

urlpatterns = [
    path("auth/token", auth.TokenView.as_view()),
    path("auth/token/refresh", auth.RefreshView.as_view()),
    path("auth/token/verify", auth.VerifyView.as_view()),
    path("auth/logout", auth.LogoutView.as_view()),
    path("auth/me", auth.MeView.as_view()),
    path("code-server/start", views.StartView.as_view()),
    path("code-server/status", views.StatusView.as_view()),
    path("code-server/stop", views.StopView.as_view()),
    path("code-server/restart", views.RestartView.as_view()),
    path("code-server/keep", views.KeepView.as_view()),
    path("code-server/logs", views.LogsView.as_view()),
    path("code-server/stats", views.StatsView.as_view()),
    path("code-server/history", views.HistoryView.as_view()),
    path("code-server/savings", savings.SavingsView.as_view()),
    path("code-server/events", views.EventsView.as_view()),
    path("workspaces", views.WorkspaceListView.as_view()),
    path("workspaces/savings", savings.AllSavingsView.as_view()),
    path("workspaces/<int:user_id>", views.WorkspaceView.as_view()),
    path("workspaces/<int:user_id>/start", views.WorkspaceStartView.as_view()),
    path("workspaces/<int:user_id>/stop", views.WorkspaceStopView.as_view()),
    path("workspaces/<int:user_id>/restart", views.WorkspaceRestartView.as_view()),
    path("schema", document.SchemaView.as_view(), name="schema"),
    path("docs", document.DocsView.as_view(url_name="schema"), name="docs"),
    re_path(r"^.*$", missing),
]
