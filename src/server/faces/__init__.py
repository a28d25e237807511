"""One file per protocol that clients speak. A face imports no other face and no engine."""
