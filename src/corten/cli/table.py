"""Every command: its path, the module and attribute that hold it, and one line of help. Modules load when run."""

from __future__ import annotations

_C = "corten.cli.commands."

# path: (module, attribute of a flags.Command, short help)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "__complete": (_C + "completion", "COMPLETE", "Say what may come next on a command line"),
    "completion": (_C + "completion", "COMPLETION", "Print a shell's completion script: bash, fish or zsh"),
    "container attach": (_C + "attach", "ATTACH", "Attach to a running container's input and output"),
    "container commit": (_C + "commit", "COMMIT", "Make an image of what a container changed"),
    "container cp": (_C + "copy", "CP", "Copy files out of a container, or into it"),
    "container create": (_C + "create", "CREATE", "Create a container without starting it"),
    "container diff": (_C + "transfer", "DIFF", "Show what changed in a container's file system"),
    "container exec": (_C + "execute", "EXEC", "Run a command in a running container"),
    "container export": (_C + "transfer", "EXPORT", "Write a container's file system as a tar"),
    "container inspect": (_C + "inspect", "CONTAINER_INSPECT", "Show all details of containers"),
    "container kill": (_C + "lifecycle", "KILL", "Send a signal to containers"),
    "container logs": (_C + "logs", "LOGS", "Show a container's output"),
    "container ls": (_C + "ps", "PS", "List containers"),
    "container pause": (_C + "lifecycle", "PAUSE", "Freeze all processes of containers"),
    "container port": (_C + "port", "PORT", "List a container's published ports"),
    "container prune": (_C + "prune", "CONTAINER_PRUNE", "Remove all stopped containers"),
    "container rename": (_C + "lifecycle", "RENAME", "Rename a container"),
    "container restart": (_C + "lifecycle", "RESTART", "Restart containers"),
    "container rm": (_C + "lifecycle", "RM", "Remove containers"),
    "container run": (_C + "run", "RUN", "Create and run a new container from an image"),
    "container start": (_C + "start", "START", "Start stopped containers"),
    "container stats": (_C + "stats", "STATS", "Watch containers' use of resources"),
    "container stop": (_C + "lifecycle", "STOP", "Stop running containers"),
    "container top": (_C + "port", "TOP", "List a container's processes"),
    "container unpause": (_C + "lifecycle", "UNPAUSE", "Thaw all processes of containers"),
    "container update": (_C + "update", "UPDATE", "Change the limits of containers"),
    "container wait": (_C + "lifecycle", "WAIT", "Wait until containers stop and print their exit codes"),
    "image bootstrap": (_C + "bootstrap", "BOOTSTRAP", "Make a base image from this host's packages"),
    "image history": (_C + "history", "HISTORY", "Show the steps an image was made in"),
    "image import": (_C + "archive", "IMPORT", "Make an image from a tar of a file system"),
    "image inspect": (_C + "inspect", "IMAGE_INSPECT", "Show all details of images"),
    "image load": (_C + "archive", "LOAD", "Load images from a tar"),
    "image ls": (_C + "images", "IMAGES", "List images"),
    "image prune": (_C + "prune", "IMAGE_PRUNE", "Remove unused images"),
    "image pull": (_C + "pull", "PULL", "Download an image from a registry"),
    "image push": (_C + "pull", "PUSH", "Upload an image to a registry"),
    "image rm": (_C + "images", "RMI", "Remove images"),
    "image save": (_C + "archive", "SAVE", "Write images as a tar"),
    "image tag": (_C + "images", "TAG", "Give an image another name"),
    "inspect": (_C + "inspect", "INSPECT", "Show all details of containers, images, networks, volumes"),
    "login": (_C + "login", "LOGIN", "Log in to a registry, Docker Hub if none is named"),
    "logout": (_C + "login", "LOGOUT", "Log out of a registry, Docker Hub if none is named"),
    "manual": (_C + "manual", "MANUAL", "Print a manual page, or write all of them"),
    "manifest annotate": (_C + "manifest", "ANNOTATE", "Say what platform an image of a local list is for"),
    "manifest create": (_C + "manifest", "CREATE", "Make a list of images for several platforms"),
    "manifest inspect": (_C + "manifest", "INSPECT", "Show the manifest of an image, or of a list"),
    "manifest push": (_C + "manifest", "PUSH", "Push a list to its registry"),
    "manifest rm": (_C + "manifest", "RM", "Forget local lists"),
    "network inspect": (_C + "inspect", "NETWORK_INSPECT", "Show all details of networks"),
    "network ls": (_C + "networks", "NETWORKS", "List networks"),
    "system check": (_C + "check", "CHECK", "Verify everything that is stored, and repair it"),
    "search": (_C + "search", "SEARCH", "Search a registry for repositories"),
    "system df": (_C + "df", "DF", "Show what uses the disk"),
    "system events": (_C + "events", "EVENTS", "Follow what happens in the daemon"),
    "system info": (_C + "info", "INFO", "Show the daemon's state and configuration"),
    "system install": (_C + "install", "INSTALL", "Make the daemon a service of systemd, with its socket"),
    "version": (_C + "version", "VERSION", "Show the versions of client and daemon"),
    "volume create": (_C + "volumes", "VOLUME_CREATE", "Create a volume"),
    "volume inspect": (_C + "inspect", "VOLUME_INSPECT", "Show all details of volumes"),
    "volume ls": (_C + "volumes", "VOLUMES", "List volumes"),
    "volume prune": (_C + "prune", "VOLUME_PRUNE", "Remove unused volumes"),
    "volume rm": (_C + "volumes", "VOLUME_RM", "Remove volumes"),
}

GROUPS = {
    "container": "Manage containers",
    "image": "Manage images",
    "manifest": "Manage lists of images for several platforms",
    "network": "Manage networks",
    "system": "Manage Corten",
    "volume": "Manage volumes",
}

_SHORT = (
    "attach commit cp create diff exec export kill logs pause port rename restart rm run start stats stop top unpause "
    "update"
).split()

# What a path may also be called: `ps` is `container ls`.
ALIASES: dict[str, str] = {
    **{name: f"container {name}" for name in [*_SHORT, "wait"]},
    **{name: f"image {name}" for name in ("history", "import", "load", "pull", "push", "save", "tag")},
    "ps": "container ls",
    "container ps": "container ls",
    "container list": "container ls",
    "container remove": "container rm",
    "images": "image ls",
    "image list": "image ls",
    "rmi": "image rm",
    "image remove": "image rm",
    "info": "system info",
    "events": "system events",
    "volume list": "volume ls",
    "volume remove": "volume rm",
    "network list": "network ls",
}


def at_the_top() -> dict[str, str]:
    """One line of help for each command of a single word, by the names that it is called by; without hidden ones."""
    named = {name: COMMANDS[path][2] for name, path in ALIASES.items() if " " not in name}
    return named | {path: entry[2] for path, entry in COMMANDS.items() if " " not in path and not hidden(path)}


def in_group(group: str) -> dict[str, str]:
    """The same of a group's commands, under their second word."""
    return {path.split(" ")[1]: entry[2] for path, entry in COMMANDS.items() if path.startswith(f"{group} ")}


def hidden(path: str) -> bool:
    """Whether programs alone call it."""
    return path.startswith("__")


def find(words: list[str]) -> tuple[str, str, list[str]]:
    """The path of the command that `words` begin with, as it is called and as it is filed, and the words after it.

    Both paths are "" when there is no such command.
    """
    for count in (2, 1):
        called = " ".join(words[:count])
        path = ALIASES.get(called, called)
        if len(words) >= count and path in COMMANDS:
            return called, path, words[count:]
    return "", "", words
