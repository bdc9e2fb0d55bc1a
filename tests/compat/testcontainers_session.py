"""A user's program that uses testcontainers, run by test_testcontainers.py in the daemon's network namespace.

It prints what it saw as JSON. `crash` as its argument: it dies without cleaning up, which is what the reaper is for.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import urllib.request

from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import HttpWaitStrategy, LogMessageWaitStrategy

PAGE = "mkdir /www; echo a page >/www/index.html; echo serving; exec httpd -f -p 80 -h /www"


def main() -> None:
    seen: dict[str, object] = {}
    web = DockerContainer("busybox:latest").with_command(["sh", "-c", PAGE]).with_exposed_ports(80)
    web = web.with_env("GREETING", "hello").with_volume_mapping("/etc", "/host-etc", "ro").with_name("tc-web")
    web.start().waiting_for(LogMessageWaitStrategy("serving"))
    HttpWaitStrategy(80).for_status_code(200).wait_until_ready(web)
    address = f"http://{web.get_container_host_ip()}:{web.get_exposed_port(80)}/"
    seen["page"] = urllib.request.urlopen(address, timeout=10).read().decode()
    code, output = web.exec(["sh", "-c", "echo $GREETING; exit 3"])
    seen["exec"] = [code, output.decode()]
    seen["logs"] = [part.decode() for part in web.get_logs()]
    seen["hostname"] = web.exec("hostname").output.decode().strip() == web.get_wrapped_container().id[:12]
    print(json.dumps(seen), flush=True)
    if sys.argv[1:] == ["crash"]:
        os.kill(os.getpid(), signal.SIGKILL)
    web.stop()


if __name__ == "__main__":
    main()
