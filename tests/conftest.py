"""For all tests."""

from __future__ import annotations

import signal

# Started in the background, by a script or a CI, we inherit an ignored SIGINT, and so would the children that some
# tests interrupt. A handler of our own becomes the default one in them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
