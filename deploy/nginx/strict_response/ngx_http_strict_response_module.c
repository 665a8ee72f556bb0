/* What an upstream answers reaches the client only as one well-formed response, with headers that are on a list.
 *
 * nginx trusts its upstreams: it passes on an interim response as if it were the last one (and all that follows it, raw),
 * takes a status line that it does not know for HTTP/0.9 (and passes on every byte, raw), opens a tunnel for any 101, and
 * keeps header names and values as they came. Where the upstream is somebody's container, each of them lets it answer in
 * the place of the site: docs/security.md.
 *
 *     strict_response on | off;            http, server, location; default: off
 *     strict_response_headers name ...;    http, server, location; all others are dropped (a tunnel's are built in)
 *     $websocket_handshake                 "websocket" where the request is a whole handshake, else ""
 *
 * A response that breaks a rule becomes a 502, which error_page may send elsewhere; the error log says which rule, and
 * nothing of what the upstream sent.
 */

#include "handshake.h"

typedef struct {
    ngx_flag_t   enabled;
    ngx_array_t *allowed; /* of ngx_str_t */
} strict_conf_t;

static ngx_int_t add_variables(ngx_conf_t *cf);
static ngx_int_t add_filter(ngx_conf_t *cf);
static void     *create_conf(ngx_conf_t *cf);
static char     *merge_conf(ngx_conf_t *cf, void *parent, void *child);
static char     *set_headers(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);

static ngx_command_t commands[] = {
    {ngx_string("strict_response"), NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF | NGX_CONF_FLAG,
     ngx_conf_set_flag_slot, NGX_HTTP_LOC_CONF_OFFSET, offsetof(strict_conf_t, enabled), NULL},
    {ngx_string("strict_response_headers"), NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF | NGX_CONF_1MORE,
     set_headers, NGX_HTTP_LOC_CONF_OFFSET, 0, NULL},
    ngx_null_command,
};

static ngx_http_module_t context = {
    .preconfiguration = add_variables,
    .postconfiguration = add_filter,
    .create_loc_conf = create_conf,
    .merge_loc_conf = merge_conf,
};

/* The name is how nginx finds it. */
ngx_module_t ngx_http_strict_response_module = {
    NGX_MODULE_V1, &context, commands, NGX_HTTP_MODULE, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NGX_MODULE_V1_PADDING,
};

#define RESET_CONTENT 205 /* nginx has no name for it */

static ngx_http_output_header_filter_pt next_filter;

/* All that a granted handshake may say, and nothing else may. */
static ngx_str_t tunnel_headers[] = {
    ngx_string("Upgrade"),
    ngx_string("Sec-WebSocket-Accept"),
    ngx_string("Sec-WebSocket-Extensions"),
    ngx_string("Sec-WebSocket-Protocol"),
};
static ngx_array_t of_a_tunnel = {
    .elts = tunnel_headers,
    .nelts = sizeof(tunnel_headers) / sizeof(tunnel_headers[0]),
    .size = sizeof(ngx_str_t),
};

/* RFC 9110, 5.6.2. */
static ngx_uint_t
is_token(const ngx_str_t *name)
{
    for (size_t i = 0; i < name->len; i++) {
        u_char c = name->data[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')
              || (c != '\0' && ngx_strchr("!#$%&'*+-.^_`|~", c) != NULL)))
        {
            return 0;
        }
    }

    return name->len > 0;
}

/* RFC 9110, 5.5: no control character but the tab. */
static ngx_uint_t
is_field_value(const ngx_str_t *value)
{
    for (size_t i = 0; i < value->len; i++) {
        if ((value->data[i] < 0x20 && value->data[i] != '\t') || value->data[i] == 0x7f) {
            return 0;
        }
    }

    return 1;
}

static ngx_uint_t
is_allowed(const ngx_array_t *list, const ngx_str_t *name)
{
    const ngx_str_t *allowed = list->elts;

    for (ngx_uint_t i = 0; i < list->nelts; i++) {
        if (allowed[i].len == name->len && ngx_strncasecmp(allowed[i].data, name->data, name->len) == 0) {
            return 1;
        }
    }

    return 0;
}

/* The rule that the upstream's response breaks, or NULL. */
static const char *
broken_rule(ngx_http_request_t *r)
{
    ngx_http_upstream_headers_in_t *in = &r->upstream->headers_in;

    if (r->http_version == NGX_HTTP_VERSION_9) {
        return "no status line";
    }
    if (in->status_n == NGX_HTTP_SWITCHING_PROTOCOLS) {
        if (!gunpowder_handshake_asked(r)) {
            return "a tunnel that the request does not wholly ask for";
        }
        if (!gunpowder_handshake_granted(r, &in->headers)) {
            return "a tunnel that is not the one asked for";
        }

    } else if (in->status_n < NGX_HTTP_OK || in->status_n > 599) {
        return "a status that is not a final one";

    } else if (in->status_n == RESET_CONTENT && (in->content_length_n != 0 || in->chunked)) {
        /* Browsers know that it has none, and take what follows for the answer to their next request. */
        return "a body where the status allows none";
    }

    for (ngx_list_part_t *part = &in->headers.part; part != NULL; part = part->next) {
        ngx_table_elt_t *header = part->elts;

        for (ngx_uint_t i = 0; i < part->nelts; i++) {
            if (!is_token(&header[i].key)) {
                return "a header's name";
            }
            if (!is_field_value(&header[i].value)) {
                return "a header's value";
            }
        }
    }

    return NULL;
}

static void
drop_others(const ngx_array_t *allowed, ngx_http_request_t *r)
{
    static const ngx_str_t content_type = ngx_string("Content-Type");

    if (!is_allowed(allowed, &content_type)) { /* which nginx keeps apart */
        ngx_str_null(&r->headers_out.content_type);
        r->headers_out.content_type_len = 0;
    }
    for (ngx_list_part_t *part = &r->headers_out.headers.part; part != NULL; part = part->next) {
        ngx_table_elt_t *header = part->elts;

        for (ngx_uint_t i = 0; i < part->nelts; i++) {
            if (header[i].hash != 0 && !is_allowed(allowed, &header[i].key)) {
                header[i].hash = 0; /* how nginx marks what is not sent */
            }
        }
    }
}

/* What the client speaks. nginx has written what it took the upstream for in the place of that; the request's own words
 * are still there: "HTTP/1.1", or nothing. Of what nginx takes for a later one ("HTTP/1.10") no more is known. */
static ngx_uint_t
spoken_version(const ngx_http_request_t *r)
{
    const ngx_str_t *protocol = &r->http_protocol;

    if (protocol->len == 0) {
        return NGX_HTTP_VERSION_9;
    }
    if (protocol->len != sizeof("HTTP/1.1") - 1) {
        return NGX_HTTP_VERSION_10;
    }
    return (protocol->data[5] - '0') * 1000 + (protocol->data[7] - '0');
}

static ngx_int_t
refuse(ngx_http_request_t *r, strict_conf_t *conf, const char *rule)
{
    ngx_int_t rc;

    ngx_log_error(NGX_LOG_ERR, r->connection->log, 0, "an upstream's response was refused: %s", rule);
    r->http_version = spoken_version(r);
    r->keepalive = 0;
    ngx_http_set_ctx(r, conf, ngx_http_strict_response_module);
    rc = ngx_http_filter_finalize_request(r, &ngx_http_strict_response_module, NGX_HTTP_BAD_GATEWAY);
    /* Else the connection is torn down behind the answer of error_page, which a client that still sends never reads. */
    r->filter_finalize = 0;
    return rc;
}

/* True for what comes from an upstream, from a cache of its responses too. What nginx says itself does not: after it is
 * done with the upstream, or in the place of what was refused. (Where error_page leads elsewhere, nginx forgets our mark.) */
static ngx_uint_t
is_upstreams(ngx_http_request_t *r)
{
    if (ngx_http_get_module_ctx(r, ngx_http_strict_response_module) != NULL || r->upstream == NULL) {
        return 0;
    }
#if (NGX_HTTP_CACHE)
    if (r->cached) {
        return 1;
    }
#endif
    return r->upstream->cleanup != NULL;
}

static ngx_int_t
filter(ngx_http_request_t *r)
{
    ngx_int_t      rc;
    const char    *rule;
    strict_conf_t *conf = ngx_http_get_module_loc_conf(r, ngx_http_strict_response_module);

    if (!conf->enabled || !is_upstreams(r)) {
        return next_filter(r);
    }

    rule = broken_rule(r);
    if (rule != NULL) {
        return refuse(r, conf, rule);
    }

    /* The reason phrase is said by nginx, in its own words. */
    if (r->headers_out.status == NGX_HTTP_SWITCHING_PROTOCOLS) {
        drop_others(&of_a_tunnel, r);
        ngx_str_set(&r->headers_out.status_line, "101 Switching Protocols");
    } else {
        drop_others(conf->allowed, r);
        ngx_str_null(&r->headers_out.status_line);
    }
    rc = next_filter(r);
    if (rc == NGX_OK && r->upstream->headers_in.chunked) {
        /* Chunks that are none end the connection at once: with what is already sent, and not with nothing at all. */
        return ngx_http_send_special(r, NGX_HTTP_FLUSH);
    }
    return rc;
}

static ngx_int_t
add_filter(ngx_conf_t *cf)
{
    next_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = filter;
    return NGX_OK;
}

static ngx_int_t
handshake_variable(ngx_http_request_t *r, ngx_http_variable_value_t *value, uintptr_t data)
{
    static ngx_str_t websocket = ngx_string("websocket");

    value->valid = 1;
    value->no_cacheable = 0;
    value->not_found = 0;
    value->data = websocket.data;
    value->len = gunpowder_handshake_asked(r) ? websocket.len : 0;
    return NGX_OK;
}

static ngx_int_t
add_variables(ngx_conf_t *cf)
{
    static ngx_str_t     name = ngx_string("websocket_handshake");
    ngx_http_variable_t *variable = ngx_http_add_variable(cf, &name, 0);

    if (variable == NULL) {
        return NGX_ERROR;
    }
    variable->get_handler = handshake_variable;
    return NGX_OK;
}

static void *
create_conf(ngx_conf_t *cf)
{
    strict_conf_t *conf = ngx_pcalloc(cf->pool, sizeof(strict_conf_t));

    if (conf == NULL) {
        return NULL;
    }
    conf->enabled = NGX_CONF_UNSET;
    conf->allowed = NGX_CONF_UNSET_PTR;
    return conf;
}

static char *
merge_conf(ngx_conf_t *cf, void *parent, void *child)
{
    strict_conf_t *above = parent;
    strict_conf_t *conf = child;

    ngx_conf_merge_value(conf->enabled, above->enabled, 0);
    ngx_conf_merge_ptr_value(conf->allowed, above->allowed, NULL);
    if (conf->enabled && conf->allowed == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "strict_response is on, and strict_response_headers says nothing");
        return NGX_CONF_ERROR;
    }
    return NGX_CONF_OK;
}

static char *
set_headers(ngx_conf_t *cf, ngx_command_t *cmd, void *given)
{
    strict_conf_t *conf = given;
    ngx_str_t     *name = cf->args->elts;

    if (conf->allowed == NGX_CONF_UNSET_PTR) {
        conf->allowed = ngx_array_create(cf->pool, cf->args->nelts, sizeof(ngx_str_t));
        if (conf->allowed == NULL) {
            return NGX_CONF_ERROR;
        }
    }
    for (ngx_uint_t i = 1; i < cf->args->nelts; i++) {
        ngx_str_t *added = ngx_array_push(conf->allowed);

        if (added == NULL) {
            return NGX_CONF_ERROR;
        }
        *added = name[i];
    }
    return NGX_CONF_OK;
}
