/* RFC 6455, 4.2.1 (what a client must send) and 4.2.2 (what a server must answer). */

#include "handshake.h"

#include <ngx_sha1.h>

#define KEY_BYTES 16
#define KEY_LENGTH ngx_base64_encoded_length(KEY_BYTES)
#define SHA1_BYTES 20
#define ACCEPT_LENGTH ngx_base64_encoded_length(SHA1_BYTES)

static const char accept_salt[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/* The value of a header that comes exactly once; NULL where it is absent or comes again. `name` in small letters. */
static ngx_str_t *
only_header(ngx_list_t *headers, const char *name)
{
    size_t           length = ngx_strlen(name);
    ngx_str_t       *found = NULL;
    ngx_list_part_t *part;

    for (part = &headers->part; part != NULL; part = part->next) {
        ngx_table_elt_t *header = part->elts;

        for (ngx_uint_t i = 0; i < part->nelts; i++) {
            if (header[i].key.len != length || ngx_strncasecmp(header[i].key.data, (u_char *) name, length) != 0) {
                continue;
            }
            if (found != NULL) {
                return NULL;
            }
            found = &header[i].value;
        }
    }

    return found;
}

static ngx_uint_t
is(const ngx_str_t *value, const char *wanted)
{
    return value != NULL && value->len == ngx_strlen(wanted)
           && ngx_strncasecmp(value->data, (u_char *) wanted, value->len) == 0;
}

/* One of a list that is separated by commas, in letters of any size: "keep-alive, Upgrade" names `upgrade`. */
static ngx_uint_t
names(const ngx_str_t *value, const char *wanted)
{
    u_char *at = value->data;
    u_char *end = value->data + value->len;

    while (at < end) {
        u_char    *comma = ngx_strlchr(at, end, ',');
        u_char    *stop = comma != NULL ? comma : end;
        ngx_str_t  item = {stop - at, at};

        while (item.len > 0 && (item.data[0] == ' ' || item.data[0] == '\t')) {
            item.data++;
            item.len--;
        }
        while (item.len > 0 && (item.data[item.len - 1] == ' ' || item.data[item.len - 1] == '\t')) {
            item.len--;
        }
        if (is(&item, wanted)) {
            return 1;
        }
        at = stop + 1;
    }

    return 0;
}

/* 16 bytes in base64, in the one form that they have. */
static ngx_uint_t
is_key(const ngx_str_t *key)
{
    u_char    bytes[ngx_base64_decoded_length(KEY_LENGTH)];
    u_char    again[KEY_LENGTH];
    ngx_str_t decoded = {0, bytes};
    ngx_str_t encoded = {0, again};
    ngx_str_t given;

    if (key == NULL || key->len != KEY_LENGTH) {
        return 0;
    }
    given = *key;
    if (ngx_decode_base64(&decoded, &given) != NGX_OK || decoded.len != KEY_BYTES) {
        return 0;
    }
    ngx_encode_base64(&encoded, &decoded);
    return ngx_memcmp(again, key->data, KEY_LENGTH) == 0;
}

ngx_uint_t
gunpowder_handshake_asked(ngx_http_request_t *r)
{
    ngx_list_t *headers;
    ngx_str_t  *connection;

    r = r->main; /* a subrequest is a GET, whatever the client sent */
    headers = &r->headers_in.headers;
    connection = only_header(headers, "connection");

    return r->method == NGX_HTTP_GET && r->http_version == NGX_HTTP_VERSION_11 && r->headers_in.content_length_n <= 0
           && !r->headers_in.chunked && connection != NULL && names(connection, "upgrade")
           && is(only_header(headers, "upgrade"), "websocket")
           && is(only_header(headers, "sec-websocket-version"), "13")
           && is_key(only_header(headers, "sec-websocket-key"));
}

static ngx_uint_t
is_accept(const ngx_str_t *accept, const ngx_str_t *key)
{
    u_char      digest[SHA1_BYTES];
    u_char      wanted[ACCEPT_LENGTH];
    ngx_str_t   hashed = {SHA1_BYTES, digest};
    ngx_str_t   encoded = {0, wanted};
    ngx_sha1_t  sha1;

    if (accept == NULL || accept->len != ACCEPT_LENGTH || key == NULL) {
        return 0;
    }
    ngx_sha1_init(&sha1);
    ngx_sha1_update(&sha1, key->data, key->len);
    ngx_sha1_update(&sha1, accept_salt, sizeof(accept_salt) - 1);
    ngx_sha1_final(digest, &sha1);
    ngx_encode_base64(&encoded, &hashed);
    return ngx_memcmp(accept->data, wanted, ACCEPT_LENGTH) == 0;
}

ngx_uint_t
gunpowder_handshake_granted(ngx_http_request_t *r, ngx_list_t *headers)
{
    return is(only_header(headers, "upgrade"), "websocket")
           && is(only_header(headers, "connection"), "upgrade")
           && is_accept(only_header(headers, "sec-websocket-accept"),
                        only_header(&r->headers_in.headers, "sec-websocket-key"))
           && r->upstream->headers_in.content_length == NULL && r->upstream->headers_in.transfer_encoding == NULL
           && !r->upstream->headers_in.chunked;
}
