"""The explorer as a notebook uses it, and the tables that nodes run by, named and drawn."""

from __future__ import annotations

import re

import pytest

import colobench as cb
from colobench.errors import LocalError
from colobench.lab.studies.protocol_tables import protocol_table, protocol_tables
from colobench.ui.views.state_diagram import StateDiagram


def test_no_state_is_wrong_with_all_rules_and_an_unknown_rule_is_one_error():
    assert cb.explore_protocol().wrong is None
    with pytest.raises(LocalError, match=r"rule: expected one of a node serves .*, found 'x'"):
        cb.explore_protocol("x")


def test_a_shortest_way_is_printed_step_by_step():
    found = cb.explore_protocol("a node serves before it is granted")
    assert str(found).count("\n") == len(found.way) == 2


@pytest.mark.parametrize("title", protocol_tables())
def test_a_diagram_has_each_state_and_each_step_of_its_table(title):
    machine = protocol_table(title)
    html = StateDiagram(machine, present=machine.start.name)._repr_html_()
    states = {state.name for state in machine.table}
    assert html.count('text-anchor="middle"') == len(states)
    steps = sum(len(row) for row in machine.table.values())
    assert html.count("<tr>") == steps + 1
    numbers = re.findall(r'font-size="11" fill="currentColor">([\d, ]+)<', html)
    shown = sorted(int(number) for each in numbers for number in each.split(","))
    assert shown == list(range(1, steps + 1))
    assert f"the present state is {machine.start.name}" in html


def test_a_diagram_refuses_a_state_of_another_table():
    with pytest.raises(LocalError, match=r"state: expected one of NONE, .*, found 'PAIRED'"):
        StateDiagram(protocol_table("failover"), present="PAIRED")


def test_an_unknown_table_is_one_error():
    with pytest.raises(LocalError, match=r"table: expected one of primary, v12, .*found 'x'"):
        protocol_table("x")
