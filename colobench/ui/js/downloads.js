// The last file that was asked for, as a link that saves it. A frame has its name; the data are its bytes.

function begin(box) {
  box.style = "font-size: 13px; line-height: 1.6; color: var(--jp-ui-font-color1, inherit); overflow-wrap: anywhere";
  let address = null;
  return (frame, data) => {
    if (!frame.name) return;
    if (address) URL.revokeObjectURL(address);
    address = URL.createObjectURL(new Blob([data], { type: frame.type }));
    const link = element("a", "color: inherit; text-decoration: underline", `Save ${frame.name}`);
    [link.href, link.download] = [address, frame.name];
    const size = element("span", "", ` (${(data.byteLength / 1000).toLocaleString("en", { maximumFractionDigits: 1 })} kB)`);
    box.replaceChildren(link, size);
    box.setAttribute("role", "status");
    box.dataset.file = frame.name;
  };
}

export default { render: (context) => follow(context, begin) };
