"""Files into and out of containers: `forks` is the daemon's end; `server` and what it imports run in processes that
have nothing but the container's files in sight.
"""
