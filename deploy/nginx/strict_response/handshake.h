/* Whether both sides of a WebSocket handshake say all that RFC 6455 wants of them. */

#ifndef GUNPOWDER_HANDSHAKE_H
#define GUNPOWDER_HANDSHAKE_H

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

/* True where the client's request is a whole handshake: anybody between it and us takes what follows a 101 for a tunnel,
 * and never for the answer to the next request. */
ngx_uint_t gunpowder_handshake_asked(ngx_http_request_t *r);

/* True where these headers of a 101 grant that request: `websocket`, by the key that was sent, and nothing that frames a
 * body. */
ngx_uint_t gunpowder_handshake_granted(ngx_http_request_t *r, ngx_list_t *headers);

#endif
