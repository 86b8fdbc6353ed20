"""The forge: GitHub's REST API and the local clone, for a pull request that brings a commit onto the branch."""
