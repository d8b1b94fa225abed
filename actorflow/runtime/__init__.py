"""The async shell: performs what the kernel asks for, and holds no policy."""
