"""Running one attempt of a job in a container, through the API that podman and docker share.

``engine``   the few calls that peerd makes, over the engine's unix socket and nothing else
``finding``  which engine there is on this machine
``request``  from an attempt to what the engine is asked for: limits, mounts, user. Pure
``holder``   a process for each container, which outlives the daemon and keeps how the container ended
``runner``   the daemon's side
"""
