from __future__ import annotations

from workspaces import naming


def test_the_names_are_those_of_the_contract() -> None:
    assert naming.container_name("code-server-user", 7) == "code-server-user-7"
    assert naming.files_folder(7) == "user_7"
    assert naming.home_folder(7) == "home_7"
    assert naming.editor_path(7) == "/code/user/7/"
    assert naming.network_name("gunpowder-user-7") == "gunpowder-user-7-network"
    assert str(naming.HOME) == "/home/coder"
    assert str(naming.FILES) == "/home/coder/workspace"
    assert naming.EDITOR_PORT == 8080


def test_the_labels_are_those_of_the_contract() -> None:
    assert naming.LABEL_WORKSPACE == "gunpowder.workspace"
    assert naming.LABEL_INSTANCE == "gunpowder.instance"
    assert naming.LABEL_SPEC == "gunpowder.spec"
    assert naming.LABEL_GENERATION == "gunpowder.generation"


def test_no_two_users_share_a_name() -> None:
    names = {naming.container_name("p", user) for user in range(300)}
    assert len(names) == 300
