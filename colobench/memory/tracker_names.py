"""Table of the trackers by name, without importing them."""

#: Every tracker's class by its name, the default first; imported on use.
TRACKERS = {
    "marked": "colobench.memory.marked.Marked",
    "userfault": "colobench.memory.userfault.UserFault",
    "shadow": "colobench.memory.shadow.Shadow",
    "mprotect": "colobench.memory.mprotect.MProtect",
}
