"""Tables of the trackers by name, without importing them."""

#: Trackers of a guest that runs in this process: every one's class by its name, the default first;
#: imported on use.
TRACKERS = {
    "marked": "colobench.memory.marked.Marked",
    "userfault": "colobench.memory.userfault.UserFault",
    "shadow": "colobench.memory.shadow.Shadow",
    "mprotect": "colobench.memory.mprotect.MProtect",
}
#: Tracker that KVM has for its guests.
KVM_TRACKER = {"kvm": "colobench.memory.kvm_log.KVMLog"}
ALL_TRACKERS = TRACKERS | KVM_TRACKER
