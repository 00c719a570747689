"""What runs a memory design where it can do no harm; `sandbox.py` is the host's side."""
