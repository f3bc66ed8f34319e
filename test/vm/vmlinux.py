"""vmlinux.py BZIMAGE OUT: takes the ELF kernel out of a bzImage, which boots without the guest unpacking it."""
import lzma
import sys

image = open(sys.argv[1], "rb").read()
at = image.find(b"\xfd7zXZ\0")
while at >= 0:
    try:
        kernel = lzma.LZMADecompressor().decompress(image[at:])
    except lzma.LZMAError:
        kernel = b""
    if kernel[:4] == b"\x7fELF":
        with open(sys.argv[2], "wb") as out:
            out.write(kernel)
        sys.exit(0)
    at = image.find(b"\xfd7zXZ\0", at + 1)
sys.exit(f"{sys.argv[1]}: no xz-compressed ELF kernel inside")
