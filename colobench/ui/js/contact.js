// A line that is empty as long as page and kernel hear each other.

// Notebook 7 puts long output into a box that scrolls, of some 300 pixels: good for a log, not for
// a panel, whose buttons and plots belong together. A table that is wider than the page scrolls
// in itself, and does not make all of the panel wider. A choice whose words need two lines gets them,
// and its button, which comes after the words, stands before them.
const WHOLE = `
.colobench-panel .widget-html { min-width: 0; }
.colobench-panel .widget-html > .widget-html-content { min-width: 0; overflow-x: auto; }
.colobench-panel .widget-radio-box label {
  display: flex; flex-direction: row-reverse; justify-content: flex-end; height: auto; line-height: 20px;
}
.colobench-panel .widget-radio-box input { flex: none; float: none; }
.jp-CodeCell.jp-mod-outputsScrolled .jp-Cell-outputArea:has(.colobench-panel) {
  max-height: none; overflow-y: visible; box-shadow: none; resize: none;
}`;

function showWhole() {
  if (document.getElementById("colobench-whole")) return;
  const style = document.head.appendChild(element("style", "", WHOLE));
  style.id = "colobench-whole";
}

function begin() {
  showWhole();
  return null;
}

export default { render: (context) => follow(context, begin, true) };
