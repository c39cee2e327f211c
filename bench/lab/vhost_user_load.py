# SPDX-License-Identifier: MIT
"""A vhost-user server on CPU 1 and `bench/client` on CPU 0, for the time of one measurement."""
import json
import subprocess
import time


def run(server, client, socket, load, queues=1):
    """What the client says, or {"error": why}.  server: its command; load: requests at a time
    on each queue, "sleep" or "poll", seconds, and those before them that do not count."""
    socket.unlink(missing_ok=True)
    with subprocess.Popen(["taskset", "-c", "1", *map(str, server)],
                          stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + 10
            while not socket.exists():
                if process.poll() is not None or time.monotonic() > end:
                    return {"error": "the server did not start"}
                time.sleep(0.02)
            done = subprocess.run(
                ["taskset", "-c", "0", client, socket, *map(str, load), str(process.pid),
                 str(queues)],
                stdout=subprocess.PIPE, text=True, check=False, timeout=90)
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
    if done.returncode:
        return {"error": f"the client ended with status {done.returncode}"}
    return json.loads(done.stdout)
