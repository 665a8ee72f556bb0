from __future__ import annotations
import pytest, time
from tests.e2e.stack import *
pytestmark=[pytest.mark.stack, pytest.mark.xdist_group("stack")]
def test_it(stack, alice):
    print(alice.status())
    print(alice.editor_opens())
    print("ws", alice.handshake(**alice.cookie), alice.handshake())
    import re
    html=alice.editor(headers=NAVIGATION).text
    m=re.search(r"stable-[0-9a-f]+", html); print(m, len(html))
    alice.shell("echo mine > ~/workspace/whoami.txt")
    for t in (m.group(0)+"/vscode-remote-resource?path=/home/coder/workspace/whoami.txt", "vscode-remote-resource?path=/home/coder/workspace/whoami.txt"):
        r=alice.editor(t); print(t, r.status_code, r.text[:100])
    print(alice.shell("ps -ef"))
    for t in ["/api/v1/x", "/api/"+"a"*20000]:
        print(stack.ask_raw(t))
    print(stack.raw(b"GET /api/v1/x HTTP/1.1\r\nConnection: close\r\n\r\n"))
    print(stack.raw(b"GET /api/v1/x HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n"))
    for i in range(80):
        r=httpx.get(f"http://127.0.0.1:{alice.own_port}/healthz", headers={"Connection":"close"},trust_env=False)
        if i%20==0: print(r.text)
        time.sleep(.05)
    assert 0
