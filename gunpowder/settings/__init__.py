"""Django settings, all derived from the one checked `Environment`."""

from __future__ import annotations

import hmac
import sys
from datetime import timedelta
from pathlib import Path

import hasher
from gunpowder.logging import configuration as logging_configuration
from gunpowder.settings import environment
from gunpowder.settings.schedule import beat_schedule
from gunpowder.settings.timing import derive_timing

BASE_DIR = Path(__file__).resolve().parents[2]

try:
    ENV = environment.load()
except environment.SettingsError as error:
    # SystemExit, not ImproperlyConfigured: the operator gets the sentence, not forty lines of traceback.
    sys.exit(str(error))

TIMING = derive_timing(ENV)

SECRET_KEY = ENV.resolved_secret_key() or "building-static-files-needs-no-secret-" + "0" * 20
DEBUG = False
ALLOWED_HOSTS = list(ENV.allowed_hosts)
# A program that forgets or adds a slash is told so, instead of being redirected without its body.
APPEND_SLASH = False
ROOT_URLCONF = "gunpowder.urls"
ASGI_APPLICATION = "gunpowder.asgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_celery_beat",
    "workspaces.apps.WorkspacesConfig",
]

MIDDLEWARE = [
    "gunpowder.middleware.request_context",
    "gunpowder.middleware.content_security_policy",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "gunpowder.admin_requests.AdminRequests",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES = {
    "default": {
        **ENV.database(),
        "CONN_MAX_AGE": 60,
        # A connection that Postgres closed (a restart) is noticed before it is used.
        "CONN_HEALTH_CHECKS": True,
    }
}
if ENV.database_pool:
    # Under ASGI each request has a thread of its own: a pool keeps the number of connections bounded.
    DATABASES["default"]["CONN_MAX_AGE"] = 0
    DATABASES["default"]["OPTIONS"]["pool"] = {"min_size": 1, "max_size": 16, "timeout": 4}
# Five seconds is what the API promises when the database is down, so connecting may take three. Nobody waits for the
# others (migrate, workers, beat), and on a busy machine giving up early would only add to its load.
DATABASES["default"]["OPTIONS"].setdefault("connect_timeout", 3 if ENV.database_pool else 20)

REDIS_URL = ENV.redis_with_password()
CACHES = {
    "default": {
        "BACKEND": "gunpowder.cache.ForgivingRedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": ENV.instance,
        "OPTIONS": {"socket_timeout": 1, "socket_connect_timeout": 1},
    }
}

# Where web asks for hashes of passwords; nobody else has the folder.
HASHER_SOCKET = Path(hasher.SOCKET)
# No other: each would be worked out in web, where a flood of log-ins takes the gate's processor.
PASSWORD_HASHERS = ["workspaces.passwords.ApartPBKDF2"]
# The second is what sessions name, as in the release before; ours never lets it be asked for a password.
AUTHENTICATION_BACKENDS = ["workspaces.logins.LockoutBackend", "django.contrib.auth.backends.ModelBackend"]
_DJANGOS = ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "workspaces.passwords.NotTooLong"},
    *({"NAME": f"django.contrib.auth.password_validation.{name}"} for name in _DJANGOS),
]
LOGIN_URL = "/login"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "/login"

SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = ENV.public_scheme == "https"
SESSION_ENGINE = "gunpowder.sessions"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_NAME = "gunpowder_session"
CSRF_COOKIE_NAME = "gunpowder_csrf"
CSRF_COOKIE_SAMESITE = "Lax"
CSRF_FAILURE_VIEW = "workspaces.web.views.csrf_failure"
X_FRAME_OPTIONS = "SAMEORIGIN"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
# Only nginx reaches web (a socket in a shared volume), and nginx always sets this header itself.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False

STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    # Hashed names, so nginx may let browsers keep them for ever; plain ones where nothing was collected (a checkout).
    "staticfiles": {
        "BACKEND": "workspaces.web.static_files.HashedFiles"
        if ENV.settings_mode == "build" or (STATIC_ROOT / "staticfiles.json").exists()
        else "django.contrib.staticfiles.storage.StaticFilesStorage"
    },
}

LOGGING_CONFIG = "logging.config.dictConfig"
LOGGING = logging_configuration(level=ENV.log_level)

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "workspaces.api.authentication.BearerAuthentication",
        "workspaces.api.authentication.CookieSessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["workspaces.api.parsers.JSONParser"],
    "DEFAULT_THROTTLE_CLASSES": ["workspaces.api.throttles.UserThrottle"],
    # Promised: reads at least 20 a second and user, log-in at least 30 a minute and address. A page that opens asks
    # for a dozen things at once, and a class logs in from one address.
    "DEFAULT_THROTTLE_RATES": {"user": "100/second", "login": "120/minute"},
    "DEFAULT_PAGINATION_CLASS": "workspaces.api.pagination.NewestFirst",
    "PAGE_SIZE": 50,
    "EXCEPTION_HANDLER": "workspaces.api.errors.exception_handler",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}

SIMPLE_JWT = {
    "ACCESS_TOKEN_LIFETIME": timedelta(minutes=10),
    "REFRESH_TOKEN_LIFETIME": timedelta(days=7),
    "UPDATE_LAST_LOGIN": True,
    "ALGORITHM": "HS256",
    # A key of its own: nothing else that the secret key signs can pass for a token, or the other way round.
    "SIGNING_KEY": hmac.new(SECRET_KEY.encode(), b"api tokens", "sha256").hexdigest(),
    "AUDIENCE": "gunpowder-api",
    "ISSUER": "gunpowder",
    "USER_ID_CLAIM": "user_id",
    "CHECK_REVOKE_TOKEN": True,
    "CHECK_USER_IS_ACTIVE": True,
}

SPECTACULAR_SETTINGS = {
    "TITLE": "Gunpowder",
    "DESCRIPTION": "A private VS Code in the browser for every user.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
}

# --- Celery; each line says which failure it closes (docs/operations.md) ---
CELERY_BROKER_URL = ENV.broker_url()
CELERY_RESULT_BACKEND = ENV.broker_url()
CELERY_RESULT_BACKEND_THREAD_SAFE = True  # one connection pool a process, not one a request
CELERY_RESULT_EXPIRES = 60
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True  # a killed worker's message is delivered again
CELERY_TASK_REJECT_ON_WORKER_LOST = True  # a killed pool child's message too; attempts are counted in the row
CELERY_WORKER_PREFETCH_MULTIPLIER = 1  # a waiting message belongs to whoever is free, not to a busy worker
CELERY_TASK_TRACK_STARTED = False
CELERY_TASK_DEFAULT_QUEUE = "sweeps"
CELERY_TASK_CREATE_MISSING_QUEUES = True
CELERY_TASK_PUBLISH_RETRY = False  # the row waits and the reconcile pass sends again; a request never hangs
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": TIMING.visibility_timeout,
    "unacked_restore_interval": 5,  # without these a killed worker's message waits 90 s instead of 20
    "unacked_restore_throttle": 1,
    "socket_timeout": 4,  # a Redis that accepts and says nothing must not hold a request
    "socket_connect_timeout": 2,
    "max_retries": 0,  # to connect for one message; kombu would go on for six seconds while a request waits
    "health_check_interval": 10,
    "global_keyprefix": f"{ENV.instance}:",
}
CELERY_REDIS_SOCKET_TIMEOUT = 4
CELERY_REDIS_SOCKET_CONNECT_TIMEOUT = 2
CELERY_RESULT_BACKEND_TRANSPORT_OPTIONS = {"global_keyprefix": f"{ENV.instance}:"}
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_MAX_TASKS_PER_CHILD = 2000  # a leak stays small
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULE = beat_schedule(ENV)
CELERY_BEAT_SYNC_EVERY = 1  # a killed beat does not fire everything again
CELERY_BEAT_MAX_LOOP_INTERVAL = 2
