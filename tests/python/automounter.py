"""A small automounter: what autofs does for one name, with the kernel's own autofs.

Usage: automounter.py DIRECTORY MAP NAME

Mounts an autofs at DIRECTORY. When a process looks at a name there, runs the program MAP with it, and mount(8) with what the program prints, as
autofs 5.1.8 does (`mount -n -t TYPE -o OPTIONS SOURCE DIRECTORY/NAME`, in its own process group). Looks at NAME itself, in another process
group, prints what is in it, and ends with status 1 if that takes longer than 30 seconds.
"""

import ctypes
import fcntl
import os
import struct
import subprocess
import sys
import threading

# <linux/auto_fs.h>
PACKET = struct.Struct("iiIIQIIIII256s")
READY, FAIL, CATATONIC, PROTOCOL_MAX = 0x9360, 0x9361, 0x9362, 5


def serve(pipe, root, directory, program):
    while data := os.read(pipe, 4096):
        fields = PACKET.unpack(data[: PACKET.size])
        token, length, name = fields[2], fields[9], fields[10]
        name = name[:length].decode()
        fcntl.ioctl(root, READY if mount(directory, program, name) else FAIL, token)


def mount(directory, program, name):
    entry = subprocess.run([program, name], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    if not entry:
        return False
    options, source = entry.split(" :")
    options = options.removeprefix("-fstype=").split(",")
    place = os.path.join(directory, name)
    os.makedirs(place, exist_ok=True)
    command = ["mount", "-n", "-t", options[0], "-o", ",".join(options[1:]), source, place]
    return subprocess.run(command).returncode == 0


def main():
    directory, program, name = sys.argv[1:]
    reader, writer = os.pipe2(os.O_DIRECT)
    # A group of its own, which the kernel does not keep waiting.
    os.setpgid(0, 0)
    options = f"fd={writer},pgrp={os.getpgrp()},minproto=5,maxproto={PROTOCOL_MAX},indirect"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"automounter", directory.encode(), b"autofs", 0, options.encode()):
        raise OSError(ctypes.get_errno(), "cannot mount an autofs")
    root = os.open(directory, os.O_RDONLY)
    threading.Thread(target=serve, args=(reader, root, directory, program), daemon=True).start()
    looked = subprocess.Popen(["ls", os.path.join(directory, name)], start_new_session=True)
    try:
        status = looked.wait(30)
    except subprocess.TimeoutExpired:
        looked.kill()
        # What waits for the automounter goes on, with an error.
        fcntl.ioctl(root, CATATONIC, 0)
        status = 1
    subprocess.run(["umount", "-l", os.path.join(directory, name)], stderr=subprocess.DEVNULL)
    fcntl.ioctl(root, CATATONIC, 0)
    subprocess.run(["umount", "-l", directory])
    os._exit(status)


main()
