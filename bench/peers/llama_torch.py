"""The model that Atoll trains, written in PyTorch: RMSNorm, rotary positions, grouped-query attention, SwiGLU, tied or
untied head, binary32. Used by the peers beside this file; shapes come from `atoll config`-like JSON on their command line."""
