/*
 * What nginx logs of an error names the request, the upstream's address and the referrer. Here without their query
 * strings: those may hold what opens a door, and logs are read by many.
 *
 * nginx asks a function of the request for that part of the line; ours takes the place of its own as soon as the
 * request's headers are read. What it logs before that, of requests that it cannot read, is below the level that we log.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

static ngx_int_t init(ngx_conf_t *cf);
static ngx_int_t take_over(ngx_http_request_t *r);
static u_char   *describe(ngx_http_request_t *r, ngx_http_request_t *sr, u_char *at, size_t room);

static ngx_http_module_t module_context = {
    NULL, init, NULL, NULL, NULL, NULL, NULL, NULL,
};

ngx_module_t ngx_http_log_without_queries_module = {
    NGX_MODULE_V1, &module_context, NULL, NGX_HTTP_MODULE, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    NGX_MODULE_V1_PADDING,
};

/* `text` up to its first question mark, and "?..." for what followed. */
static u_char *
without_query(u_char *at, u_char *end, const ngx_str_t *text)
{
    ngx_str_t shown = *text;
    u_char   *mark = NULL;

    if (shown.len) {
        mark = memchr(shown.data, '?', shown.len);
    }
    if (mark != NULL) {
        shown.len = mark - shown.data;
    }
    return ngx_slprintf(at, end, "%V%s", &shown, mark != NULL ? "?..." : "");
}

static u_char *
field(u_char *at, u_char *end, const char *name, const ngx_str_t *text)
{
    at = ngx_slprintf(at, end, ", %s: \"", name);
    at = without_query(at, end, text);
    return ngx_slprintf(at, end, "\"");
}

static u_char *
upstream(u_char *at, u_char *end, ngx_http_upstream_t *u)
{
    const char *separator = "";

#if (NGX_HAVE_UNIX_DOMAIN)
    if (u->peer.sockaddr && u->peer.sockaddr->sa_family == AF_UNIX) {
        separator = ":";
    }
#endif
    at = ngx_slprintf(at, end, ", upstream: \"%V%V%s", &u->schema, u->state->peer, separator);
    at = without_query(at, end, &u->uri);
    return ngx_slprintf(at, end, "\"");
}

/* The end of a line about `r`, met in its subrequest `sr` (or in itself); in the order and the words of nginx's own. */
static u_char *
describe(ngx_http_request_t *r, ngx_http_request_t *sr, u_char *at, size_t room)
{
    u_char                   *end = at + room;
    ngx_http_core_srv_conf_t *server = ngx_http_get_module_srv_conf(r, ngx_http_core_module);

    at = ngx_slprintf(at, end, ", server: %V", &server->server_name);
    if (r->request_line.len) {
        at = field(at, end, "request", &r->request_line);
    }
    if (r != sr) {
        at = field(at, end, "subrequest", &sr->uri);
    }
    if (sr->upstream && sr->upstream->state && sr->upstream->state->peer) {
        at = upstream(at, end, sr->upstream);
    }
    if (r->headers_in.host) {
        at = field(at, end, "host", &r->headers_in.host->value);
    }
    if (r->headers_in.referer) {
        at = field(at, end, "referrer", &r->headers_in.referer->value);
    }
    return at;
}

static ngx_int_t
take_over(ngx_http_request_t *r)
{
    r->log_handler = describe;
    return NGX_DECLINED;
}

/* A request that cannot be read never comes to the first of these phases, but its error page comes to the second. */
static ngx_int_t
init(ngx_conf_t *cf)
{
    static const ngx_uint_t    phases[] = { NGX_HTTP_POST_READ_PHASE, NGX_HTTP_SERVER_REWRITE_PHASE };
    ngx_http_core_main_conf_t *main = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    for (ngx_uint_t i = 0; i < sizeof(phases) / sizeof(phases[0]); i++) {
        ngx_http_handler_pt *handler = ngx_array_push(&main->phases[phases[i]].handlers);

        if (handler == NULL) {
            return NGX_ERROR;
        }
        *handler = take_over;
    }
    return NGX_OK;
}
