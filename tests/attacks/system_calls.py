# ATTACK: makes every system call that is not on the list of allowed ones | EXPECT: ok
import ctypes
import errno

from jail import layers


class MemoryDesign:
    async def general_update(self, trajectory):
        libc = ctypes.CDLL(None, use_errno=True)
        allowed = {int(item.split("=")[1]) for item in f"{layers.ALLOWED} {layers.ALLOWED_IN_OWN_ROOT}".split()}
        with_rules = {9, 16, 46, 53, 56, 72, 83, 86, 88, 157, 234, 257, 258, 265, 266, 302}
        for_the_kernel = {335, 336}  # uretprobe and uprobe: filters do not see them, whoever calls them dies
        made = []
        for number in sorted(set(range(1024)) - allowed - with_rules - for_the_kernel):
            ctypes.set_errno(0)
            if libc.syscall(number, 0, 0, 0, 0, 0, 0) >= 0 or ctypes.get_errno() not in (errno.EPERM, errno.ENOSYS):
                made.append(number)
        self.out = f"ESCAPED[calls]: {made}" if made else "BLOCKED[calls]"

    async def general_retrieve(self, trajectory):
        return self.out
