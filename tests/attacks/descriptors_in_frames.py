# ATTACK: sends descriptors to the host along with its messages | EXPECT: error
import array
import json
import os
import socket
import struct


class MemoryDesign:
    async def general_update(self, trajectory):
        connection = socket.socket(fileno=3)
        body = json.dumps({"op": "call", "id": 9, "tool": "ask", "arguments": ["", "x", None, None]}).encode()
        for _ in range(600):
            rights = array.array("i", list(os.pipe()) * 50)
            connection.sendmsg([struct.pack("!I", len(body)) + body], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            for descriptor in set(rights):
                os.close(descriptor)

    async def general_retrieve(self, trajectory):
        return "memory"
